"""What a file of TANGO installs: engine, libs and custom packages."""

import re
import sys
from collections.abc import Iterable

from controller.spec.dialects.draft import Draft, Given, Section
from controller.spec.dialects.tango.tables import ENGINES
from controller.spec.messages import nearest

PYPI = ("build", "packages", "pypi")
APT = ("build", "packages", "apt")
COMPONENTS = ("engine", "libs", "custom_packages")
CUSTOM = ("apt", "atp", "pypi", "papi")
# Libraries that belong to a device's driver: no index has them.
DEVICE_LIBRARIES = frozenset(("mali-fbdev",))
# Parts of the standard library, also those that later versions of Python have dropped (PEP 594, PEP 632, and others): a
# stored file means the same under each of them.
STANDARD_LIBRARY = sys.stdlib_module_names | frozenset(
    (
        "aifc", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "crypt", "distutils", "imghdr", "imp",
        "lib2to3", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "pipes", "smtpd", "sndhdr", "spwd", "sunau",
        "telnetlib", "uu", "xdrlib",
    )
)  # fmt: skip
# Names that writers make of a module of the standard library, and that no index has.
_MADE_UP = frozenset(f"python-{name}" for name in ("math", "time", "os", "sys", "random", "re", "datetime", "json"))
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def read_engine(draft: Draft, build: Section, components: Section) -> Given | None:
    """The engine, with one of the known names; None where there is none."""
    inside, outside = components.take("engine"), build.take("engine")
    given = inside or outside
    if given is None:
        return None
    if inside and outside and inside.text.lower() != outside.text.lower():
        draft.refuse(outside.at, "build.components.engine says something else; keep one of them")
    name = given.text.lower()
    if name not in ENGINES:
        message = f"'{given.text[:60]}' is no engine that is known{nearest(name, ENGINES)}; known: {', '.join(ENGINES)}"
        draft.refuse(given.at, message)
        return None
    return Given(name, given.at)


def read_packages(draft: Draft, components: Section) -> bool:
    """Writes `build.packages`; answers whether anything was asked for, also what is left out."""
    custom = components.section("custom_packages")
    libs = components.take("libs")
    apt = [custom.take(name) for name in ("apt", "atp")]
    pypi = [custom.take(name) for name in ("pypi", "papi")]
    custom.refuse_rest(CUSTOM)
    for given, right in ((apt[1], "apt"), (pypi[1], "pypi")):
        if given is not None:
            draft.understood(given.at, f"is read as {right}")
    wanted = [entry for given in (libs, *pypi) if given is not None for entry in given.entries]
    draft.add(PYPI, _once(entry for entry in wanted if _exists(draft, entry)))
    draft.add(APT, _once(entry for given in apt if given is not None for entry in given.entries))
    return bool(wanted or any(apt))


def _once(entries: Iterable[Given]) -> list[Given]:
    """Each value at its first place."""
    found: dict[str, Given] = {}
    for entry in entries:
        found.setdefault(repr(entry.value), entry)
    return list(found.values())


def package_name(requirement: str) -> str:
    """Without extras and versions, in lower case; "" where there is none."""
    match = _NAME.match(requirement)
    return match[0].lower() if match else ""


def _exists(draft: Draft, entry: Given) -> bool:
    """Whether an index can have it. What is left out is told."""
    name = package_name(entry.text)
    if name == "python":
        draft.understood(entry.at, f"'{entry.text}' is left out: the target profile says which Python there is")
    elif name in DEVICE_LIBRARIES:
        draft.understood(entry.at, f"'{entry.text}' is left out: it comes from the device, with its accelerator")
    elif name.split(".")[0] in STANDARD_LIBRARY:
        draft.understood(entry.at, f"'{entry.text}' is left out: it is part of Python's standard library")
    elif name in _MADE_UP:
        module = name.partition("-")[2]
        draft.understood(
            entry.at, f"'{entry.text}' is left out: there is no such package, and {module} is part of Python"
        )
    else:
        return True
    return False
