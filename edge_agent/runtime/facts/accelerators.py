"""All accelerators of a machine, with the names by which workloads get them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edge_agent.runtime import kernel_files
from edge_agent.runtime.facts.boards import board_accelerators
from edge_agent.runtime.facts.cdi import ALL, CdiDevice, cdi_devices, units
from edge_agent.runtime.facts.found import Accelerator
from edge_agent.runtime.facts.nvidia import gpus
from edge_agent.runtime.facts.nvml import Gpu

MOST = 64


def accelerators(root: Path, told: Sequence[Gpu] = ()) -> tuple[Accelerator, ...]:
    """Those that were found, and those that only a CDI file names whose device nodes are there. `told`: by NVML."""
    named: defaultdict[str, list[CdiDevice]] = defaultdict(list)
    for device in cdi_devices(root):
        named[device.kind].append(device)
    found = [*gpus(root, told), *board_accelerators(root)]
    kinds = [accelerator.kind for accelerator in found]
    here = [_with_names(one, named[one.kind], alone=kinds.count(one.kind) == 1) for one in found]
    others = (device for kind, devices in named.items() if kind not in kinds for device in _present(root, devices))
    return (*here, *(Accelerator(one.kind, nodes=one.nodes, cdi=(one.qualified,)) for one in others))[:MOST]


def _with_names(accelerator: Accelerator, named: list[CdiDevice], *, alone: bool) -> Accelerator:
    """The only one of its kind has all names of that kind; of several each has those that give its own nodes."""
    own = [device for device in named if alone or device.name == ALL or set(device.nodes) & set(accelerator.nodes)]
    return replace(accelerator, cdi=tuple(device.qualified for device in own)[:MOST])


def _present(root: Path, devices: list[CdiDevice]) -> Iterator[CdiDevice]:
    """A file may be left of what was taken out."""
    for device in units(devices):
        if all(kernel_files.exists(root / node.lstrip("/")) for node in device.nodes):
            yield device
