"""Whether programs of another architecture run on this machine."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from controller.builds.model import BuildFailed
from controller.builds.targets import TargetProfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
# The names of qemu's handlers in the kernel's table of foreign formats.
HANDLERS = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64", "arm": "qemu-arm"}
BINFMT = Path("/proc/sys/fs/binfmt_misc")


def own_architecture() -> str:
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


class Runner(Protocol):
    """Where steps run. `architecture` as Go spells it."""

    architecture: str

    async def check(self, profile: TargetProfile) -> None:
        """Returns when steps for this profile can run there. Raises BuildFailed."""


async def check_needed(runner: Runner, profile: TargetProfile, emulated: Sequence[str]) -> None:
    """Returns when the steps of a build can run, of which `emulated` are those on a foreign machine. Raises BuildFailed
    that names them."""
    if runner.architecture == profile.architecture or not emulated:
        return
    try:
        await runner.check(profile)
    except BuildFailed as failure:
        if failure.reason != "EmulationUnavailable":
            raise
        raise BuildFailed(failure.reason, f"{failure.message}; needed here: {'; '.join(emulated)}") from failure


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


def emulated_architectures() -> frozenset[str]:
    """Those other than its own of which this machine runs programs."""
    return frozenset(each for each in HANDLERS if each != own_architecture() and _is_emulated(each))


def _is_emulated(architecture: str) -> bool:
    handler = BINFMT / HANDLERS.get(architecture, architecture)
    return handler.exists() and "enabled" in handler.read_text().split()
