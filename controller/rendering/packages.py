"""Lists of packages as files of the build context: names never become part of a shell command, and may be any number.

A step reads its list by a bind mount, which Podman's layer cache does not look into: the step's text bears the digest.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controller.rendering import quoting

# All arguments of a process, which Linux limits to 2 MiB together with the environment.
MAX_ARGUMENTS = 1_500_000
# As many names a preview shows; the list has them all.
SHOWN = 40
LINE_WIDTH = 100


@dataclass(frozen=True)
class StepFile:
    """One file below `packages/` of the context, which a step reads."""

    name: str
    text: str

    @property
    def path(self) -> str:
        """In the context."""
        return f"packages/{self.name}"

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.text.encode()).hexdigest()}"


@dataclass(frozen=True)
class PackageList(StepFile):
    """`count` packages are in it; `shown` are comment lines for people."""

    count: int
    shown: tuple[str, ...]


def names_list(manager: str, names: Sequence[str]) -> PackageList:
    """The list for apt, dnf or apk: a name a line. Raises CannotQuote."""
    check: dict[str, Callable[[str], str]] = {
        "apt": quoting.apt_package, "dnf": quoting.dnf_package, "apk": quoting.apk_package,
    }  # fmt: skip
    checked = [check[manager](name) for name in names]
    if sum(len(name) + 9 for name in checked) > MAX_ARGUMENTS:
        raise quoting.CannotQuote(f"{len(checked)} {manager} packages make a command longer than Linux takes")
    return PackageList(f"{manager}.txt", _lines(checked), len(checked), _shown(manager, checked))


def requirements_list(requirements: Sequence[str], indexes: Sequence[str]) -> PackageList:
    """The list for pip and uv, in their format of requirements. Raises CannotQuote."""
    checked = [quoting.pypi_requirement(requirement) for requirement in requirements]
    options = [f"--extra-index-url {quoting.index_url(url)}" for url in indexes]
    shown = (*_shown("pypi", checked), *(f"# pypi index: {url}" for url in indexes))
    return PackageList("pypi.txt", _lines([*options, *checked]), len(checked), shown)


def conda_shown(packages: Sequence[str], channels: Sequence[str]) -> tuple[str, ...]:
    """Comment lines for people; no step reads the names. Raises CannotQuote."""
    checked = [quoting.conda_package(package) for package in packages]
    sources = [quoting.conda_channel(channel) for channel in channels]
    return (*_shown("conda", checked), f"# conda channels: {' '.join(sources)}")


def conda_scripts(lines: Sequence[str]) -> PackageList:
    """The list of conda packages whose own scripts run, with version and build number. Raises CannotQuote."""
    checked = [quoting.conda_script(line) for line in lines]
    return PackageList("conda-scripts.txt", _lines(checked), len(checked), ())


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _shown(manager: str, names: Sequence[str]) -> tuple[str, ...]:
    lines, current = [], f"# {manager}:"
    for name in names[:SHOWN]:
        if len(current) + 1 + len(name) > LINE_WIDTH:
            lines.append(current)
            current = f"# {manager}:"
        current += f" {name}"
    lines.append(current)
    if len(names) > SHOWN:
        lines.append(f"# {manager}: and {len(names) - SHOWN} more")
    return tuple(lines)
