"""Devices of the Container Device Interface, for workloads that run on the device itself: their nodes, files, variables
and groups. Hooks are not run: they prepare the file system of a container, and this is the device's own.

https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baremetal_agent.virtualenv.layout import Bind
from baremetal_agent.virtualenv.system import SHOWN
from edge_agent.runtime.backend import BackendError, Unsupported
from edge_agent.runtime.facts import cdi

# Those whose names the device tells.
FOLDERS = tuple(Path("/", folder) for folder in cdi.FOLDERS)


@dataclass(frozen=True)
class Granted:
    """What a workload gets. `groups` own nodes that not everybody may use."""

    binds: tuple[Bind, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    groups: tuple[int, ...] = ()


def grant(workload: str, names: Iterable[str], *, apart: bool) -> Granted:
    """All that the devices consist of. `apart`: the workload can be shown something elsewhere than it is. Raises
    BackendError "DeviceMissing", retryable, where this device has none of that name, or not all of it; Unsupported."""
    wanted = list(names)
    if not wanted:
        return Granted()
    known = {name: edits for path in _files() for name, edits in _devices(path)}
    if missing := [name for name in wanted if name not in known]:
        what = f"this device has no {', '.join(missing)}; make the CDI file of its accelerator in {FOLDERS[0]}"
        raise BackendError("DeviceMissing", f"cannot start {workload}: {what}", retryable=True)
    edits = [edit for name in wanted for edit in known[name]]
    nodes, files = list(dict.fromkeys(_nodes(edits))), list(dict.fromkeys(_mounts(edits)))
    _require(workload, wanted, [*nodes, *files], apart=apart)
    variables = [entry.partition("=") for edit in edits for entry in edit.get("env") or ()]
    return Granted(
        binds=(*nodes, *(bind for bind in files if bind.source != bind.target or not _shown(bind.target))),
        variables=tuple((name, value) for name, _, value in variables),
        groups=tuple(sorted({*_groups(nodes), *_additional(edits)})),
    )


def _require(workload: str, wanted: Iterable[str], binds: Iterable[Bind], *, apart: bool) -> None:
    """Of a device with something missing nobody knows what it still can."""
    names = ", ".join(wanted)
    if absent := [bind.source for bind in binds if not Path(bind.source).exists()]:
        what = f"{names} wants {', '.join(absent)}, which is not there; is its driver loaded?"
        raise BackendError("DeviceMissing", f"cannot start {workload}: {what}", retryable=True)
    if not apart and (moved := [bind.target for bind in binds if bind.source != bind.target]):
        what = f"{names} is to be found at {', '.join(moved)}, which takes a sandbox; apt-get install bubblewrap"
        raise Unsupported(f"cannot start {workload}: {what}")


def _files() -> Iterator[Path]:
    for folder in FOLDERS:
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if path.suffix in (".json", ".yaml", ".yml"))


def _devices(path: Path) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Full name of each device of a file, and what it takes. A file that makes no sense has none."""
    try:
        document = _parse(path)
        for device in document["devices"]:
            edits = [document.get("containerEdits") or {}, device.get("containerEdits") or {}]
            yield f"{document['kind']}={device['name']}", edits
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return


def _parse(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_text())
    # Only a device with an accelerator needs it.
    import yaml

    try:
        return yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _nodes(edits: Iterable[Mapping[str, Any]]) -> Iterator[Bind]:
    for edit in edits:
        for node in edit.get("deviceNodes") or ():
            yield Bind(str(node.get("hostPath") or node["path"]), str(node["path"]), read_only=False, device=True)


def _mounts(edits: Iterable[Mapping[str, Any]]) -> Iterator[Bind]:
    """Libraries of a driver, sockets of its services."""
    for edit in edits:
        for mount in edit.get("mounts") or ():
            writable = "rw" in (mount.get("options") or ())
            yield Bind(str(mount["hostPath"]), str(mount["containerPath"]), read_only=not writable)


def _shown(path: str) -> bool:
    """Whether every workload sees it anyway."""
    return any(Path(path).is_relative_to(folder) for folder in SHOWN)


def _groups(nodes: Iterable[Bind]) -> Iterator[int]:
    """Who may use nodes that not everybody may."""
    for node in nodes:
        found = Path(node.source).stat()
        if found.st_mode & 0o060 == 0o060 and found.st_mode & 0o006 != 0o006:
            yield found.st_gid


def _additional(edits: Iterable[Mapping[str, Any]]) -> Iterator[int]:
    for edit in edits:
        # 0 is none, by the specification.
        yield from (int(group) for group in edit.get("additionalGids") or () if int(group))
