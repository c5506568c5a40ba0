"""Images that the controller's machine sends to a builder host."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from controller.builds.bases import Base
from controller.builds.cancelling import despite_cancel
from controller.builds.model import BuildFailed
from controller.builds.podman import Podman
from controller.builds.pulled_bases import tag_of

# For an architecture as Go spells it, a base in this machine's storage that no user chose. Raises BuildFailed.
FindHelper = Callable[[str], Awaitable[Base]]


class Helper:
    """The image whose shell looks after builds on a host, with all rights there: so never one of a user's."""

    def __init__(self, find: FindHelper, own: Podman, on_used: Callable[[str, bool], None] = lambda *_: None) -> None:
        """`on_used` is told its id, and whether it has just been sent; it may block for as long as a small file
        takes."""
        self._find = find
        self._own = own
        self._on_used = on_used
        self._image = ""

    async def on(self, podman: Podman, architecture: str) -> str:
        """Its id; afterwards it is in the host's storage. Raises BuildFailed."""
        sent = False
        if not self._image or not await exists(podman, self._image):
            base = await self._find(architecture)
            if not await exists(podman, base.image_id):
                await send(self._own, podman, base)
                sent = True
            self._image = base.image_id
        await asyncio.to_thread(self._on_used, self._image, sent)
        return self._image


async def exists(podman: Podman, image: str) -> bool:
    return (await podman.run("image", "exists", image)).returncode == 0


async def send(own: Podman, podman: Podman, base: Base) -> None:
    """Afterwards the base of this machine's storage is in the other one's, by its id and its name. Raises
    BuildFailed."""
    told = await own.run("image", "inspect", "--format", "{{range .RepoTags}}{{.}} {{end}}", base.image_id)
    names, by_id = told.stdout.split(), tag_of(base.image_id)
    # With its name, which becomes a part of the history of what is built on it: the one that counts on this machine.
    name = by_id if by_id in names else next(iter(names), base.image_id)
    archive = own.temporary / f"send-{secrets.token_hex(8)}.tar"
    try:
        await checked(own, "save", "--quiet", "--format", "oci-archive", "--output", str(archive), name)
        await checked(podman, "load", "--quiet", "--input", str(archive))
    finally:
        await despite_cancel(asyncio.to_thread(archive.unlink, missing_ok=True))
    if not await exists(podman, base.image_id):
        raise BuildFailed("BaseUnusable", f"{base.name} is another image on the builder host", retryable=True)


async def checked(podman: Podman, *arguments: str) -> str:
    """What the command prints. Raises BuildFailed."""
    done = await podman.run(*arguments)
    if done.returncode != 0:
        raise BuildFailed(
            "BuilderUnusable", f"podman {arguments[0]} fails: {done.stderr.strip()[-500:]}", retryable=True
        )
    return done.stdout
