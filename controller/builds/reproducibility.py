"""What would differ if the same request were built again, as sentences for people. Pure."""

import re
from collections.abc import Callable, Collection, Sequence

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from controller.builds.requirements import Requirements
from controller.spec.image_names import split_name

EXACT_APT = re.compile(r"[^=]+=[^=]+")
# name-version-release
EXACT_DNF = re.compile(r".+-[^-]+-[^-]+")
EXACT_APK = re.compile(r"[^=<>~]+=[^=<>~]+")
EXACT_CONDA = re.compile(r"[^=<>!~]+={1,2}[ ]?[0-9][^*,|<>!]*")
MOST_NAMED = 5


def image_notes(requirements: Requirements, base: str, base_digest: str, steps: Sequence[str] = ()) -> tuple[str, ...]:
    """Of an image on `base`, as the spec or profile names it; `base_digest` is "" where it was made from packages.
    `steps` are commands, of which nobody knows what they do."""
    notes = []
    if not base_digest:
        notes.append(
            f"not repeatable: the base {base} was made from the distribution's packages, as they were at the time"
        )
    elif "@sha256:" not in base:
        notes.append(f"not repeatable: the base {base} may change; name it as {split_name(base)[0]}@{base_digest}")
    notes += package_notes(requirements)
    if steps:
        notes.append(
            "not repeatable, unless build.steps are: what they download, or take from the clock, is not looked at"
        )
    return tuple(notes)


def bundle_notes(requirements: Requirements, installed: Collection[str]) -> tuple[str, ...]:
    """Of a bundle, which has no base; `installed` are the names of all its packages."""
    pinned = {canonicalize_name(Requirement(one).name) for one in requirements.pypi if _exact_pypi(one)}
    floating = sorted({canonicalize_name(name) for name in installed} - pinned)
    return (_newest("pypi", floating, "NAME==VERSION"),) if floating else ()


def package_notes(requirements: Requirements) -> tuple[str, ...]:
    return (
        *_open("apt", requirements.apt, _matches(EXACT_APT), "NAME=VERSION"),
        *_open("dnf", requirements.dnf, _matches(EXACT_DNF), "NAME-VERSION-RELEASE"),
        *_open("apk", requirements.apk, _matches(EXACT_APK), "NAME=VERSION"),
        *_open("pypi", requirements.pypi, _exact_pypi, "NAME==VERSION"),
        *_open("conda", requirements.conda, _matches(EXACT_CONDA), "NAME=VERSION"),
    )


def _open(manager: str, packages: Sequence[str], exact: Callable[[str], bool], form: str) -> tuple[str, ...]:
    """Says which packages leave their version open, and that what they need themselves is open in any case."""
    floating = [package for package in packages if not exact(package)]
    if floating:
        return (_newest(manager, floating, form),)
    if packages:
        return (f"not repeatable: what the named {manager} packages need is taken in its newest version, unless named",)
    return ()


def _newest(manager: str, packages: Sequence[str], form: str) -> str:
    named = ", ".join(packages[:MOST_NAMED]) + (", ..." if len(packages) > MOST_NAMED else "")
    return f"not repeatable: the newest versions are taken of the {manager} packages {named}; pin them as {form}"


def _exact_pypi(requirement: str) -> bool:
    """Whether one version only may be taken; "==1.*" leaves it open."""
    parts = Requirement(requirement).specifier
    return any(part.operator in ("==", "===") and not part.version.endswith(".*") for part in parts)


def _matches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda package: pattern.fullmatch(package) is not None
