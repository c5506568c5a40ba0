"""The machine itself: architecture, system, kernel, processors, memory, board."""

import os
import re
from pathlib import Path

from edge_agent.runtime import kernel_files
from edge_agent.runtime.kernel_files import word

# Machine names of uname(2) -> architecture names of Go and OCI; arm variants are part of the platform, not of the name.
ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv8l": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "i386": "386",
    "riscv64": "riscv64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}
DEVICE_TREE = Path("proc/device-tree")
DMI = Path("sys/class/dmi/id")
# What makers of mainboards leave in place of a name.
NO_NAME = re.compile(
    r"^$|to be filled|default string|system (product name|manufacturer)|^o\.?e\.?m|^none$|not (specified|applicable)",
    re.IGNORECASE,
)
LONGEST_NAME = 128
MOST_CORES = 65536


def architecture(machine: str = "") -> str:
    """`machine` in place of what uname(2) says."""
    machine = machine or os.uname().machine
    return ARCHITECTURES.get(machine, machine)


def kernel(root: Path) -> str:
    return word(root / "proc/sys/kernel/osrelease")[:LONGEST_NAME] or os.uname().release


def cpus(root: Path) -> int:
    """Cores that are switched on: "0-3,6" of sysfs; those that Python sees where that is not told."""
    count = 0
    for part in word(root / "sys/devices/system/cpu/online").split(","):
        if found := re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part):
            count += max(0, int(found[2] or found[1]) - int(found[1]) + 1)
    return min(count, MOST_CORES) or os.cpu_count() or 0


def memory_bytes(root: Path) -> int:
    """MemTotal of proc(5), which counts in KiB."""
    found = re.search(r"^MemTotal:\s+(\d{1,14})\b", kernel_files.text(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def system(root: Path) -> str:
    """PRETTY_NAME of os-release(5), "linux" where there is none."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        for line in kernel_files.lines(root / path):
            name, _, value = line.partition("=")
            if name == "PRETTY_NAME" and (told := kernel_files.clean(value).strip("\"'")[:LONGEST_NAME]):
                return told
    return "linux"


def board(root: Path) -> str:
    """What the device tree or the mainboard's firmware (DMI) calls the machine; empty where neither does."""
    if model := word(root / DEVICE_TREE / "model"):
        return model[:LONGEST_NAME]
    for maker, product in (("sys_vendor", "product_name"), ("board_vendor", "board_name")):
        names = [word(root / DMI / maker), word(root / DMI / product)]
        if NO_NAME.search(names[1]):
            continue
        if NO_NAME.search(names[0]) or names[1].lower().startswith(names[0].lower()):
            names = names[1:]
        return " ".join(names)[:LONGEST_NAME]
    return ""


def compatible(root: Path) -> list[str]:
    """What the board says that it is, the closest first: "nvidia,p3768-0000+p3767-0005", ..., "nvidia,tegra234"."""
    return kernel_files.text(root / DEVICE_TREE / "compatible", 4096).split("\0")
