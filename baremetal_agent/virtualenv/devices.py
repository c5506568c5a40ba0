"""Devices of the Container Device Interface, for workloads that run on the device itself: their device nodes.

https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baremetal_agent.virtualenv.layout import Bind
from edge_agent.runtime.backend import BackendError

FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))


@dataclass(frozen=True)
class Granted:
    """What a workload gets. `groups` own nodes that not everybody may use."""

    binds: tuple[Bind, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    groups: tuple[int, ...] = ()


def grant(workload: str, names: Iterable[str], folders: Iterable[Path] = FOLDERS) -> Granted:
    """Raises BackendError "DeviceMissing", retryable, where this device has none of that name, or not all of it."""
    wanted = list(names)
    if not wanted:
        return Granted()
    known = {name: edits for path in _files(folders) for name, edits in _devices(path)}
    if missing := [name for name in wanted if name not in known]:
        what = f"this device has no {', '.join(missing)}; make the CDI file of its accelerator in {FOLDERS[0]}"
        raise BackendError("DeviceMissing", f"cannot start {workload}: {what}", retryable=True)
    edits = [edit for name in wanted for edit in known[name]]
    nodes = list(dict.fromkeys(_nodes(edits)))
    if absent := [node for node in nodes if not Path(node).exists()]:
        what = f"{', '.join(wanted)} wants {', '.join(absent)}, which is not there; is its driver loaded?"
        raise BackendError("DeviceMissing", f"cannot start {workload}: {what}", retryable=True)
    variables = [entry.partition("=") for edit in edits for entry in edit.get("env") or ()]
    return Granted(
        binds=(*(Bind(node, node, read_only=False, device=True) for node in nodes), *_mounts(edits)),
        variables=tuple((name, value) for name, _, value in variables),
        groups=tuple(sorted({group for node in nodes if (group := _group(Path(node))) is not None})),
    )


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
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


def _nodes(edits: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for edit in edits:
        for node in edit.get("deviceNodes") or ():
            yield str(node.get("hostPath") or node["path"])


def _mounts(edits: Iterable[Mapping[str, Any]]) -> Iterator[Bind]:
    """Libraries of a driver; those that lie where they are to be seen are seen anyway."""
    for edit in edits:
        for mount in edit.get("mounts") or ():
            source, target = str(mount["hostPath"]), str(mount["containerPath"])
            if source != target and Path(source).exists():
                yield Bind(source, target)


def _group(node: Path) -> int | None:
    found = node.stat()
    return found.st_gid if found.st_mode & 0o060 == 0o060 and found.st_mode & 0o006 != 0o006 else None
