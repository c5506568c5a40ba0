"""The device's own files as a workload sees them: read-only, and only those that programs need."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Of the usual folders those that hold programs, their libraries and settings, and what the kernel tells of hardware.
SHOWN = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/etc", "/sys")
RESOLVER = "/etc/resolv.conf"


@dataclass(frozen=True)
class System:
    """`folders` are shown as they are; `links` are links of the root folder and where they lead."""

    folders: tuple[str, ...]
    links: tuple[tuple[str, str], ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return (*self.folders, *(link for link, _ in self.links))


def this_system(extra: Iterable[Path] = (), shown: Iterable[str] = SHOWN) -> System:
    """As it is now. `extra` are files or folders that have to be seen too, where they are not anyway."""
    there = [path for path in shown if os.path.lexists(path)]
    links = tuple((path, str(Path(path).readlink())) for path in there if Path(path).is_symlink())
    folders = [path for path in there if not Path(path).is_symlink()]
    for path in (*extra, *_resolver()):
        if not any(path.is_relative_to(folder) for folder in folders):
            folders.append(str(path))
    return System(tuple(folders), links)


def _resolver() -> Iterator[Path]:
    """The file that says how names are looked up often lies below /run."""
    where = Path(RESOLVER)
    if where.exists() and where.is_symlink():
        yield where.resolve()


def python_home(environment: Path) -> Path | None:
    """The folder that holds the Python of a virtual environment; None where the link to it is broken."""
    program = (environment / "bin/python").resolve()
    return program.parents[1] if program.exists() else None


def covers(system: System, target: str) -> tuple[Path, list[Path]] | None:
    """What stands in the way of something new at `target`: the deepest folder of the device on the way there that is
    shown read-only, and what else is in it. None where nothing does, or where the very path exists."""
    place = PurePosixPath(target)
    if not any(place.is_relative_to(folder) for folder in system.folders) or os.path.lexists(target):
        return None
    parent = next(Path(parent) for parent in place.parents if Path(parent).is_dir())
    return parent, sorted(parent.iterdir())
