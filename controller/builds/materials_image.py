"""The files of an image in a builder's storage, as a folder to read from, without running anything of it."""

import asyncio
import contextlib
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

from controller.builds.cancelling import despite_cancel, in_thread
from controller.builds.materials_reading import APK_DATABASES, OS_RELEASE, RPM_DATABASES
from controller.builds.podman import Podman
from controller.builds.processes import Completed

# Of an image that cannot be mounted, only these are brought here: beginnings of paths, and parts that paths have.
WANTED = (
    "var/lib/dpkg/status",
    *OS_RELEASE,
    *APK_DATABASES,
    *RPM_DATABASES,
    "opt/conda/conda-meta/",
    "opt/longshore/wheels/",
)
WANTED_PART = ".dist-info/METADATA"


class CannotRead(Exception):
    """The image's files cannot be read; the text says what Podman said."""


@asynccontextmanager
async def image_root(podman: Podman, image_id: str) -> AsyncIterator[Path]:
    """The image's root while the block lasts: mounted where that can be, else the files about packages, brought here.

    Only to be read. Raises CannotRead.
    """
    if mounted := await _mount(podman, image_id):
        try:
            yield mounted
        finally:
            await _whole(podman.run("image", "unmount", image_id))
        return
    async with _exported(podman, image_id) as folder:
        yield folder


async def _mount(podman: Podman, image_id: str) -> Path | None:
    """Podman counts the mounts of an image: each that was made is to be undone once."""
    mounting = asyncio.ensure_future(podman.run("image", "mount", image_id))
    try:
        done = await _whole(mounting)
    except asyncio.CancelledError:
        if mounting.result().returncode == 0:
            await despite_cancel(podman.run("image", "unmount", image_id))
        raise
    return Path(done.stdout.strip()) if done.returncode == 0 else None


async def _whole(work: Awaitable[Completed]) -> Completed:
    """Finishes `work`; a cancel takes effect afterwards."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await despite_cancel(asyncio.wait([task]))
        raise


@asynccontextmanager
async def _exported(podman: Podman, image_id: str) -> AsyncIterator[Path]:
    """Without root, and on a builder on another machine, nothing can be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="materials-", dir=podman.temporary))
    # The command is never run; an image without one of its own needs it to become a container.
    creating = asyncio.ensure_future(podman.run("create", "--network", "none", image_id, "true"))
    try:
        made = await _whole(creating)
        if made.returncode != 0:
            raise CannotRead(made.stderr.strip()[-300:])
        created = made.stdout.strip()
        exported = await podman.run("export", "--output", str(folder / "image.tar"), created)
        if exported.returncode != 0:
            raise CannotRead(exported.stderr.strip()[-300:])
        await in_thread(_unpack, folder / "image.tar", folder / "root")
        yield folder / "root"
    finally:
        await despite_cancel(asyncio.to_thread(shutil.rmtree, folder, True))
        # A machine that was lost tells no container's name, and removes it itself when it is back.
        if creating.exception() is None and creating.result().returncode == 0:
            await despite_cancel(podman.run("rm", "-f", "-t", "0", creating.result().stdout.strip()))


def _unpack(archive: Path, root: Path) -> None:
    root.mkdir()
    with tarfile.open(archive, "r|") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if name.startswith(WANTED) or name.endswith(WANTED_PART):
                # A name that leads out of the folder, or a device, is none of what is looked for.
                with contextlib.suppress(tarfile.FilterError, OSError):
                    tar.extract(member, root, filter="data")
