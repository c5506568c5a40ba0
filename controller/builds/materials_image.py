"""The files of an image in a builder's storage, as a folder to read from, without running anything of it."""

import asyncio
import contextlib
import ctypes
import os
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from controller.builds import processes
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
# mount(2): the flag, and the page that the options of a mount fit in, with a zero at their end.
MS_RDONLY, MAX_OPTIONS = 1, 4095


class CannotRead(Exception):
    """The image's files cannot be read; the text says what Podman said."""


@asynccontextmanager
async def image_root(podman: Podman, image_id: str) -> AsyncIterator[Path]:
    """The image's root while the block lasts: mounted where that can be, else the files about packages, brought here.

    Only to be read, and while nobody removes the image. Raises CannotRead.
    """
    with _mounted(podman, image_id) as folder:
        if folder is not None:
            yield folder
            return
    async with _exported(podman, image_id) as brought:
        yield brought


@contextlib.contextmanager
def _mounted(podman: Podman, image_id: str) -> Iterator[Path | None]:
    """By the kernel alone: `podman image mount` takes a tenth of a second, and holds up a push meanwhile. None where
    that cannot be, as without root."""
    layers = podman.layers(image_id)
    if len(layers) < 2:
        yield layers[0] if layers else None
        return
    folder = Path(tempfile.mkdtemp(prefix="materials-", dir=podman.temporary))
    try:
        yield folder if _mount(layers, folder) else None
    finally:
        processes.unmount(str(folder))
        # Where the builder was closed meanwhile, it is not there any more.
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()


def _mount(layers: tuple[Path, ...], folder: Path) -> bool:
    """Whether the union of these, the topmost first, is at the folder now: mount(2), and the kernel's documentation of
    overlayfs."""
    options = f"lowerdir={':'.join(map(str, layers))}"
    if len(options) > MAX_OPTIONS or any(set(",:\\") & set(str(layer)) for layer in layers):
        return False
    failed: int = ctypes.CDLL(None).mount(b"overlay", os.fsencode(folder), b"overlay", MS_RDONLY, options.encode())
    return not failed


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
