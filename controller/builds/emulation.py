"""Whether programs of another architecture run on this machine."""

import platform
from pathlib import Path

from controller.builds.model import BuildFailed
from controller.builds.targets import TargetProfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
# The names of qemu's handlers in the kernel's table of foreign formats.
HANDLERS = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64", "arm": "qemu-arm"}
BINFMT = Path("/proc/sys/fs/binfmt_misc")


def own_architecture() -> str:
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def runnable_architectures() -> set[str]:
    """Those whose programs run here, by nature or by emulation."""
    return {own_architecture(), *(name for name in HANDLERS if _is_emulated(name))}


def check_runnable(profile: TargetProfile) -> None:
    """Returns when steps of a build for this profile can run. Raises BuildFailed."""
    architecture = profile.architecture
    if architecture == own_architecture():
        return
    if not _is_emulated(architecture):
        raise BuildFailed(
            "EmulationUnavailable",
            f"this machine ({own_architecture()}) cannot run programs for {profile.platform}; install "
            "qemu-user-static and binfmt-support, or build on a machine of that architecture",
        )


def _is_emulated(architecture: str) -> bool:
    handler = BINFMT / HANDLERS.get(architecture, architecture)
    return handler.exists() and "enabled" in handler.read_text().split()
