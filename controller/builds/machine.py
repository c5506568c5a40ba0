"""Where the steps of builds run and their layers are kept: this machine's Podman, or that of a builder host."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from controller.builds import recovery
from controller.builds.bases import Base
from controller.builds.cancelling import despite_cancel
from controller.builds.credentials import RegistryFiles
from controller.builds.emulation import check_runnable, own_architecture
from controller.builds.leavings import Leavings
from controller.builds.log import BuildLog
from controller.builds.model import BuildFailed, RegistryAccess
from controller.builds.outcome import push_failure
from controller.builds.podman import Podman
from controller.builds.targets import TargetProfile


class HostLost(BuildFailed):
    """The machine does not answer any more; what it was building may be tried elsewhere at once."""

    def __init__(self, message: str) -> None:
        super().__init__("BuilderLost", message, retryable=True)


class Machine(Protocol):
    """One Podman. Every call raises HostLost when the machine has gone; a cancel leaves nothing of the call."""

    # Runs commands on it; valid inside of a build.
    podman: Podman
    leavings: Leavings
    # As Go and OCI spell it; "" where it is not known.
    architecture: str

    async def have_base(self, base: Base, log: BuildLog) -> None:
        """Afterwards the base is in its storage. Raises BuildFailed."""

    async def build(self, arguments: Sequence[str], base: Base, scratch: Path, log: BuildLog) -> int:
        """`podman build`; its exit status. `scratch` is a folder that the caller removes."""

    async def push(self, image: str, target: str, folder: Path, access: RegistryAccess, log: BuildLog) -> str:
        """The digest under which the image lies at `target` now. Raises BuildFailed."""

    async def check(self, profile: TargetProfile) -> None:
        """Returns when steps for this profile can run there. Raises BuildFailed."""

    async def remove_leftovers(self) -> None:
        """Removes what builds left that had to be killed. Only when no build runs."""


class OwnMachine:
    """The controller's own."""

    def __init__(self, podman: Podman) -> None:
        self.podman = podman
        self.leavings = Leavings()
        self.architecture = own_architecture()

    async def have_base(self, base: Base, log: BuildLog) -> None:
        """Bases are found in this storage."""

    async def build(self, arguments: Sequence[str], base: Base, scratch: Path, log: BuildLog) -> int:
        status = -1
        try:
            status = await self.podman.build(arguments, scratch, log)
        finally:
            if status < 0:
                await despite_cancel(recovery.remove_build(self.podman, scratch))
        return status

    async def push(self, image: str, target: str, folder: Path, access: RegistryAccess, log: BuildLog) -> str:
        return await push(self.podman, image, target, folder, access)

    async def check(self, profile: TargetProfile) -> None:
        await asyncio.to_thread(check_runnable, profile)

    async def remove_leftovers(self) -> None:
        await recovery.remove_leftovers(self.podman)


async def push(podman: Podman, image: str, target: str, folder: Path, access: RegistryAccess) -> str:
    """Pushes from the storage of this machine; the digest. Raises BuildFailed."""
    digest_file = folder / "digest"
    options = await RegistryFiles(folder, access).options()
    arguments = ("push", "--digestfile", str(digest_file), *options, image, f"docker://{target}")
    pushed = await podman.run(*arguments, temporary=folder / "scratch")
    if pushed.returncode != 0:
        raise push_failure(pushed.stderr, target.rpartition(":")[0])
    return (await asyncio.to_thread(digest_file.read_text)).strip()
