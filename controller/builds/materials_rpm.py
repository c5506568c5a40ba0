"""What rpm has installed in an image, as the image's own rpm lists it: a user's program, which may do anything."""

import asyncio
import contextlib
import secrets

from controller.builds import processes
from controller.builds.machine import HostLost
from controller.builds.materials_image import CannotRead
from controller.builds.materials_reading import RPM_FORMAT
from controller.builds.model import BuildFailed
from controller.builds.podman import Podman
from controller.builds.progress_lines import joined

# A whole distribution's list has less than a mebibyte.
LARGEST = 16 * 2**20
# Seconds; by emulation a long list takes several.
DEADLINE = 120.0


async def rpm_listing(podman: Podman, image_id: str, largest: int = LARGEST, deadline: float = DEADLINE) -> str:
    """What `rpm -qa` of the image prints in RPM_FORMAT. rpm's database changes its form with its version, so the
    image's own rpm reads it.

    However it ends, nothing of it runs afterwards. Raises BuildFailed, CannotRead.
    """
    name = f"longshore-rpm-{secrets.token_hex(8)}"
    options = ("--rm", "--name", name, "--network", "none", "--read-only", "--entrypoint", "rpm")
    argv = podman.argv(["run", *options, image_id, "-qa", "--qf", RPM_FORMAT])

    async def stop(process: asyncio.subprocess.Process) -> None:
        # The container is no child of the process: it would run on.
        with contextlib.suppress(HostLost):
            await _remove(podman, name)
        await processes.stop_group(process)
        with contextlib.suppress(HostLost):
            await _remove(podman, name)

    listing = _Listing(largest)
    try:
        async with asyncio.timeout(deadline) as listing.limit:
            status = await processes.stream(argv, podman.environment(), listing, stop)
    except TimeoutError:
        raise listing.failure(deadline) from None
    if status != 0:
        await _remove(podman, name)
        raise CannotRead(joined(listing.errors).strip()[-300:])
    return joined(listing.lines)


async def _remove(podman: Podman, container: str) -> None:
    await podman.run("rm", "-f", "-t", "0", "-i", container)


class _Listing:
    """An OnLine that keeps no more than `largest` characters, and then lets `limit` expire."""

    limit: asyncio.Timeout

    def __init__(self, largest: int) -> None:
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._largest = largest
        self._left = largest

    def __call__(self, stream: str, text: str) -> None:
        if self._left < 0:
            return
        self._left -= len(text) + 1
        if self._left >= 0:
            (self.errors if stream == "stderr" else self.lines).append(text)
        elif not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time())

    def failure(self, deadline: float) -> Exception:
        if self._left >= 0:
            return CannotRead(f"its rpm does not list its packages within {deadline:g} s")
        return BuildFailed(
            "MaterialsTooLarge", f"the image's rpm prints more than {self._largest} bytes; is it the one of its base?"
        )
