"""What a workload finds where: its command, its variables, and which paths lead to which folders of the device."""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from baremetal_agent.virtualenv.bundle import ENVIRONMENT
from baremetal_agent.virtualenv.releases import Release
from edge_agent.runtime.backend import BackendError
from edge_agent.runtime.model import Workload

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOME = "/tmp"


@dataclass(frozen=True)
class Bind:
    """A file or folder of the device, seen at `target`."""

    source: str
    target: str
    read_only: bool = True
    device: bool = False


@dataclass(frozen=True)
class Layout:
    """`words[0]` may be a bare name until `resolved`; `folder` is the working directory."""

    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    folder: str
    binds: tuple[Bind, ...]

    def variable(self, name: str) -> str:
        return dict(self.environment).get(name, "")


def lay_out(
    workload: Workload,
    release: Release,
    extra: Iterable[Bind],
    variables: Mapping[str, str],
    defaults: Mapping[str, str],
) -> Layout:
    """As the bundle's description and the workload say it. `extra` are mounts, volumes, secrets and devices;
    `variables` win over what people wrote, `defaults` do not."""
    description = release.description
    binds = [
        Bind(str((release.folder / name).resolve()), place, read_only=not release.writable or name == ENVIRONMENT)
        for place, name in description.places
    ]
    environment = {**_base(release), **defaults}
    environment |= dict(description.environment) | dict(workload.environment) | dict(variables)
    return Layout(
        words=workload.entrypoint or description.entrypoint,
        environment=tuple(sorted(environment.items())),
        folder=workload.working_dir or description.workdir,
        # The deeper place is bound later, into the other one.
        binds=tuple(sorted([*binds, *extra], key=lambda bind: bind.target.count("/"))),
    )


def _base(release: Release) -> dict[str, str]:
    """What an image of the same spec would set."""
    place = next((place for place, name in release.description.places if name == ENVIRONMENT), "")
    found = {"PATH": f"{place}/bin:{SYSTEM_PATH}" if place else SYSTEM_PATH, "HOME": HOME, "PYTHONUNBUFFERED": "1"}
    return {**found, "VIRTUAL_ENV": place} if place else found


def rewritten(layout: Layout) -> Layout:
    """The same for a workload that sees the device as it is: places give way to the folders that would stand there."""
    places = {bind.target: bind.source for bind in layout.binds}
    longest_first = "|".join(re.escape(place) for place in sorted(places, key=len, reverse=True))
    whole = re.compile(rf"(?<![\w./-])(?:{longest_first})(?![\w.-])")

    def written(text: str) -> str:
        return whole.sub(lambda found: places[found[0]], text) if places else text

    return replace(
        layout,
        words=tuple(written(word) for word in layout.words),
        environment=tuple((name, written(value)) for name, value in layout.environment),
        folder=written(layout.folder),
        binds=(),
    )


def resolved(name: str, layout: Layout, system: Sequence[str]) -> Layout:
    """With the absolute path of its program, as the workload sees it. `system` are the device's own folders that it
    sees. Raises BackendError, final: "CommandNotFound", "CommandNotExecutable"."""
    if not layout.words:
        raise BackendError("CommandNotFound", f"{name} has no command; set deploy.entrypoint", retryable=False)
    word = layout.words[0]
    found = _find(word, layout, lambda path: outside(layout, path, system))
    if found is None:
        message = f"cannot start {name}: there is no program {shlex.quote(word)}"
        raise BackendError("CommandNotFound", message, retryable=False)
    program, there = found
    if not _is_executable(there):
        message = f"cannot start {name}: {program} may not be executed"
        raise BackendError("CommandNotExecutable", message, retryable=False)
    return replace(layout, words=(program, *layout.words[1:]))


def _find(word: str, layout: Layout, look: Callable[[str], Path | None]) -> tuple[str, Path] | None:
    """Where it is inside, and on the device."""
    folders = [layout.folder] if "/" in word else layout.variable("PATH").split(":")
    candidates = [str(PurePosixPath(layout.folder, folder, word)) for folder in folders if folder or "/" in word]
    there = [(path, place) for path in candidates if (place := look(path)) is not None and place.is_file()]
    # As a shell does, past files of that name that may not be executed.
    return next((pair for pair in there if _is_executable(pair[1])), next(iter(there), None))


def outside(layout: Layout, path: str, system: Sequence[str]) -> Path | None:
    """Where on the device a path inside leads to; None for what is not seen inside."""
    inside = PurePosixPath(path)
    for bind in reversed(layout.binds):
        if inside.is_relative_to(bind.target):
            return Path(bind.source, inside.relative_to(bind.target))
    return Path(path) if any(inside.is_relative_to(folder) for folder in system) else None


def _is_executable(path: Path) -> bool:
    """For everybody: the workload is another user."""
    return bool(path.stat().st_mode & 0o001)
