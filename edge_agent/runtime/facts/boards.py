"""Accelerators of boards and on sticks: Mali, Rockchip's NPU, Hailo, Coral, by nodes and files of their drivers."""

import re
from collections.abc import Iterator
from pathlib import Path

from edge_agent.runtime import kernel_files
from edge_agent.runtime.facts.found import CORAL, HAILO, MALI, ROCKCHIP, Accelerator
from edge_agent.runtime.facts.machine import compatible
from edge_agent.runtime.kernel_files import word

LONGEST_VERSION = 32
# https://github.com/hailo-ai/hailort-drivers: PCI vendor and device of its processors.
HAILO_CHIPS = {"1e60:2864": "Hailo-8", "1e60:45c4": "Hailo-10H"}
# Before its firmware is loaded, and afterwards: https://coral.ai/docs/accelerator/get-started/
CORAL_STICKS = (("1a6e", "089a"), ("18d1", "9302"))
MALI_MODULES = ("mali_kbase", "bifrost_kbase", "midgard_kbase", "mali")
RKNPU_FILES = ("sys/kernel/debug/rknpu", "proc/rknpu")


def board_accelerators(root: Path) -> Iterator[Accelerator]:
    yield from _mali(root)
    yield from _rockchip(root)
    yield from _hailo(root)
    yield from _coral(root)


def _mali(root: Path) -> Iterator[Accelerator]:
    """With ARM's own driver; what has OpenCL needs it."""
    for node in _nodes(root, r"mali\d"):
        # "Mali-G52 1 cores r1p0 0x74021000"
        name = word(root / f"sys/class/misc/{node}/device/gpuinfo").split(" ")[0]
        loads = [*_engines(root, r".*[.-]?(gpu|mali).*"), root / "sys/class/mpgpu/utilization"]
        yield Accelerator(
            kind=MALI,
            name=name if name.startswith("Mali") else "",
            nodes=(f"/dev/{node}",),
            driver=_module_version(root, *MALI_MODULES),
            load=next(filter(kernel_files.exists, loads), None),
        )


def _rockchip(root: Path) -> Iterator[Accelerator]:
    """With Rockchip's own driver, RKNPU."""
    drivers = kernel_files.names(root / "sys/bus/platform/drivers/RKNPU")
    bound = any(re.fullmatch(r"[0-9a-f]+\.r?k?npu", name) for name in drivers)
    files = [root / path for path in RKNPU_FILES if kernel_files.exists(root / path)]
    nodes = tuple(f"/dev/{name}" for name in (*_nodes(root, "rknpu"), *_rendering(root)))
    if not (bound or files or "/dev/rknpu" in nodes):
        return
    chip = next((name.split(",")[1] for name in compatible(root) if re.fullmatch(r"rockchip,rk\d{4}[a-z]?", name)), "")
    versions = (word(folder / "version") for folder in files)
    found = (re.search(r"\bv(\d+\.\d+\.\d+)\b", said) for said in versions)
    loads = [*(folder / "load" for folder in files), *_engines(root, r".*npu.*")]
    yield Accelerator(
        kind=ROCKCHIP,
        name=f"{chip.upper()} NPU" if chip else "",
        nodes=nodes,
        driver=next((version[1] for version in found if version), "") or _module_version(root, "rknpu"),
        load=next(filter(kernel_files.exists, loads), None),
    )


def _rendering(root: Path) -> Iterator[str]:
    """Where the driver shows itself as a graphics device: its render node."""
    for name in kernel_files.names(root / "sys/class/drm"):
        said = kernel_files.lines(root / "sys/class/drm" / name / "device/uevent")
        if re.fullmatch(r"renderD\d{1,3}", name) and "DRIVER=RKNPU" in said:
            yield f"dri/{name}"


def _hailo(root: Path) -> Iterator[Accelerator]:
    for node in _nodes(root, r"hailo\d{1,2}"):
        chip = word(root / "sys/class/hailo_chardev" / node / "device_id")
        name = HAILO_CHIPS.get(chip, "")
        yield Accelerator(HAILO, name, (f"/dev/{node}",), driver=_module_version(root, "hailo_pci", "hailo1x_pci"))


def _coral(root: Path) -> Iterator[Accelerator]:
    for node in _nodes(root, r"apex_\d{1,2}"):
        driver = word(root / "sys/class/apex" / node / "driver_version")[:LONGEST_VERSION]
        yield Accelerator(CORAL, "Coral Edge TPU", (f"/dev/{node}",), driver=driver)
    for place in kernel_files.names(root / "sys/bus/usb/devices"):
        folder = root / "sys/bus/usb/devices" / place
        if (word(folder / "idVendor"), word(folder / "idProduct")) in CORAL_STICKS:
            numbers = [kernel_files.number(folder / name) for name in ("busnum", "devnum")]
            nodes = tuple(f"/dev/bus/usb/{bus:03d}/{device:03d}" for bus, device in [numbers] if bus and device)
            yield Accelerator(CORAL, "Coral USB Accelerator", nodes)


def _nodes(root: Path, pattern: str) -> list[str]:
    return [name for name in kernel_files.names(root / "dev") if re.fullmatch(pattern, name)]


def _engines(root: Path, pattern: str) -> list[Path]:
    """Files of engines whose clock follows their load: "45@400000000Hz", of Rockchip's kernels."""
    folder = root / "sys/class/devfreq"
    return [folder / name / "load" for name in kernel_files.names(folder) if re.fullmatch(pattern, name)]


def _module_version(root: Path, *modules: str) -> str:
    said = (word(root / "sys/module" / module / "version") for module in modules)
    return next((version[:LONGEST_VERSION] for version in said if version), "")
