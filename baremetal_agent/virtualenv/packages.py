"""The Debian packages that a bundle wants to find on the device."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import structlog

from baremetal_agent.virtualenv.commands import run
from edge_agent.runtime.backend import BackendError

log = structlog.get_logger()

FORMAT = "${db:Status-Status}|${Package}|${Architecture}|${Version}|${Provides}\n"
APT = ("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120")


@dataclass(frozen=True)
class Installed:
    """What dpkg has: version by name, and by name and architecture; names that packages provide besides."""

    versions: dict[str, str] = field(default_factory=dict)
    provided: frozenset[str] = frozenset()

    def has(self, requirement: str) -> bool:
        """`libgomp1`, `libgomp1=12.2.0-14`, `libc6:arm64`."""
        name, _, version = requirement.partition("=")
        if name in self.versions:
            return version in ("", self.versions[name])
        return not version and name in self.provided


def parse_installed(output: str) -> Installed:
    """From the output of dpkg-query with FORMAT."""
    versions: dict[str, str] = {}
    provided: set[str] = set()
    for line in output.splitlines():
        fields = line.split("|", 4)
        if len(fields) == 5 and fields[0] == "installed":
            _, name, architecture, version, provides = fields
            versions |= {name: version, f"{name}:{architecture}": version}
            provided.update(_names(provides))
    return Installed(versions, frozenset(provided))


def _names(provides: str) -> Iterator[str]:
    """Of "mail-transport-agent, libfoo (= 1.2)"."""
    for entry in provides.split(","):
        if words := entry.split():
            yield words[0]


class Packages:
    """`may_install`: whether what is lacking is installed by apt-get, which needs root and a network."""

    def __init__(self, may_install: bool) -> None:
        self._may_install = may_install
        self._lock = asyncio.Lock()

    async def require(self, reference: str, wanted: Iterable[str]) -> None:
        """Afterwards they are installed. Raises BackendError, retryable, since somebody may install them:
        "MissingPackages" with their names, "PackagesNotInstalled" with what apt-get said."""
        requirements = tuple(wanted)
        if not requirements:
            return
        async with self._lock:
            missing = await self._missing(reference, requirements)
            if missing and self._may_install:
                await _install(reference, missing)
                missing = await self._missing(reference, requirements)
        if missing:
            names = " ".join(missing)
            message = f"{reference} needs Debian packages that this device lacks: {names}; apt-get install {names}"
            raise BackendError("MissingPackages", message, retryable=True)

    async def _missing(self, reference: str, requirements: tuple[str, ...]) -> list[str]:
        asked = await run("dpkg-query", "--show", f"--showformat={FORMAT}")
        if asked.code != 0:
            names = " ".join(requirements)
            message = f"{reference} needs Debian packages ({names}), and dpkg-query fails: {asked.last_words}"
            raise BackendError("MissingPackages", message, retryable=True)
        installed = parse_installed(asked.output)
        return [requirement for requirement in requirements if not installed.has(requirement)]


async def _install(reference: str, missing: list[str]) -> None:
    log.info("packages_installing", artifact=reference, packages=" ".join(missing))
    argv = (*APT, "install", "--no-install-recommends", "--", *missing)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    ended = await run(*argv, env=quiet)
    if ended.code != 0:
        # Lists that are old or were never fetched know no such package.
        await run(*APT, "update", env=quiet)
        ended = await run(*argv, env=quiet)
    if ended.code != 0:
        message = f"cannot install {' '.join(missing)} for {reference}: {ended.last_words}"
        raise BackendError("PackagesNotInstalled", message, retryable=True)
