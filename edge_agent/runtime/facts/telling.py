"""The facts as the controller is told of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_agent.runtime.disk import rounded, spaces
from edge_agent.runtime.facts import machine
from edge_agent.runtime.facts.accelerators import accelerators
from edge_agent.runtime.facts.found import Accelerator
from longshore.v1 import device_pb2

ROOT = Path("/")


def device_facts(
    agent_version: str,
    root: Path = ROOT,
    *,
    folders: Iterable[Path] = (),
    found: Sequence[Accelerator] | None = None,
    before: device_pb2.DeviceFacts | None = None,
    uname_machine: str = "",
) -> device_pb2.DeviceFacts:
    """Facts of the machine whose file system starts at `root`; what cannot be read is left empty or 0.

    `folders` are those whose disks are told of; `found` the accelerators, where they are known already; `before` what
    was told last; `uname_machine` the machine in place of the one that this runs on.
    """
    return device_pb2.DeviceFacts(
        architecture=machine.architecture(uname_machine),
        os=machine.system(root),
        kernel=machine.kernel(root),
        cpus=machine.cpus(root),
        memory_bytes=machine.memory_bytes(root),
        agent_version=agent_version,
        model=machine.board(root),
        accelerators=map(told, accelerators(root) if found is None else found),
        disks=_disks(folders, before),
    )


def told(accelerator: Accelerator) -> device_pb2.Accelerator:
    return device_pb2.Accelerator(
        kind=accelerator.kind,
        name=accelerator.name,
        devices=accelerator.devices,
        memory_bytes=accelerator.memory_bytes,
        driver=accelerator.driver,
    )


def _disks(folders: Iterable[Path], before: device_pb2.DeviceFacts | None) -> list[device_pb2.Disk]:
    known = {disk.path: disk.free_bytes for disk in before.disks} if before is not None else {}
    return [
        device_pb2.Disk(
            path=str(space.path), size_bytes=space.size, free_bytes=rounded(space.free, known.get(str(space.path)))
        )
        for space in spaces(folders)
    ]
