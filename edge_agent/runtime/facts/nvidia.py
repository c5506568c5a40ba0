"""GPUs of NVIDIA: cards by what their driver shows in /proc, and Jetsons by their release file and device tree."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edge_agent.runtime import kernel_files
from edge_agent.runtime.facts.found import NVIDIA, Accelerator
from edge_agent.runtime.facts.machine import LONGEST_NAME, compatible
from edge_agent.runtime.facts.nvml import Gpu

CONTROL = Path("dev/nvidiactl")
DRIVER = Path("proc/driver/nvidia")
VERSION = re.compile(r"Kernel Module(?: for \S+)?\s+(\d[\d.]{1,30})")
FIELD = re.compile(r"^([A-Za-z ]+):[ \t]+(\S.*?)\s*$", re.MULTILINE)
RELEASE = Path("etc/nv_tegra_release")
# "# R36 (release), REVISION: 3.0, GCID: ...": https://docs.nvidia.com/jetson/
TEGRA = re.compile(r"#\s*R(\d{1,4}) \(release\), REVISION: (\d[\d.]{0,15})")
# The chip of the device tree -> what CUDA calls its GPU.
CHIPS = {
    "nvidia,tegra264": "NVIDIA Thor",
    "nvidia,tegra234": "Orin",
    "nvidia,tegra194": "Xavier",
    "nvidia,tegra186": "NVIDIA Tegra X2",
    "nvidia,tegra210": "NVIDIA Tegra X1",
}
JETSON_NODES = ("nvhost-gpu", "nvgpu", "nvmap")
# Depends on the release; `gpu.0` is a link to the others in most. In a thousandth.
JETSON_LOADS = ("sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load")
JETSON_ENGINES = re.compile(r"\d+\.(gpu|gv11b|gp10b|ga10b|gm20b)")


def has_cards(root: Path) -> bool:
    """Whether NVML can tell anything: not on a Jetson, whose library knows little."""
    return kernel_files.exists(root / CONTROL) and not _is_jetson(root)


def gpus(root: Path, told: Sequence[Gpu]) -> list[Accelerator]:
    """`told`: by NVML, as far as it was asked."""
    if _is_jetson(root):
        return [_jetson(root)]
    if not has_cards(root):
        return []
    cards = list(_cards(root)) or [_named(gpu) for gpu in told]
    details = {node_of(gpu): gpu for gpu in told}
    return [_completed(card, details.get(card.nodes)) for card in cards]


def _is_jetson(root: Path) -> bool:
    return kernel_files.exists(root / RELEASE)


def _jetson(root: Path) -> Accelerator:
    release = TEGRA.search(kernel_files.text(root / RELEASE, 4096))
    engines = kernel_files.names(root / "sys/class/devfreq")
    loads = [*JETSON_LOADS, *(f"sys/class/devfreq/{e}/device/load" for e in engines if JETSON_ENGINES.fullmatch(e))]
    return Accelerator(
        kind=NVIDIA,
        name=next((CHIPS[chip] for chip in compatible(root) if chip in CHIPS), ""),
        nodes=tuple(f"/dev/{name}" for name in JETSON_NODES if kernel_files.exists(root / "dev" / name)),
        driver=f"R{release[1]}.{release[2]}" if release else "",
        load=next((root / path for path in loads if kernel_files.exists(root / path)), None),
    )


def _cards(root: Path) -> Iterator[Accelerator]:
    version = VERSION.search(kernel_files.text(root / DRIVER / "version", 4096))
    for place in kernel_files.names(root / DRIVER / "gpus"):
        said = dict(FIELD.findall(kernel_files.text(root / DRIVER / "gpus" / place / "information", 4096)))
        minor = said.get("Device Minor", "")
        if said.get("GPU Excluded") == "Yes" or not re.fullmatch(r"\d{1,3}", minor):
            continue
        yield Accelerator(
            kind=NVIDIA,
            name=kernel_files.clean(said.get("Model", ""))[:LONGEST_NAME],
            nodes=(f"/dev/nvidia{minor}",),
            driver=version[1] if version else "",
        )


def _named(gpu: Gpu) -> Accelerator:
    return Accelerator(NVIDIA, gpu.name, node_of(gpu), driver=gpu.driver)


def node_of(gpu: Gpu) -> tuple[str, ...]:
    return (f"/dev/nvidia{gpu.minor}",) if gpu.minor >= 0 else ()


def _completed(card: Accelerator, gpu: Gpu | None) -> Accelerator:
    if gpu is None:
        return card
    return replace(card, name=gpu.name or card.name, memory_bytes=gpu.memory_bytes, driver=gpu.driver or card.driver)
