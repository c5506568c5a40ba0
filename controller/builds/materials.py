"""What is inside an image: a CycloneDX bill of materials, read from its files, and attached to the artifact."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controller.builds.cancelling import despite_cancel
from controller.builds.log import BuildLog
from controller.builds.materials_document import MEDIA_TYPE, document
from controller.builds.materials_image import CannotRead, image_root
from controller.builds.materials_reading import Package, TooMuch, has_rpm, installed_packages, rpm_packages
from controller.builds.materials_rpm import rpm_listing
from controller.builds.model import BuildFailed, BuiltArtifact, RegistryAccess, TargetJob
from controller.builds.podman import Podman
from controller.builds.referrers import attach_document
from controller.builds.registry import RegistryUnreachable


async def image_materials(podman: Podman, image_id: str, job: TargetJob, log: BuildLog) -> bytes:
    """The document of an image in the builder's storage, in JSON. Raises BuildFailed."""
    try:
        async with image_root(podman, image_id) as root:
            packages = await asyncio.to_thread(installed_packages, root)
            if await asyncio.to_thread(has_rpm, root):
                packages += rpm_packages(await rpm_listing(podman, image_id), root)
    except CannotRead as error:
        raise BuildFailed(
            "MaterialsUnreadable", f"cannot read what is inside the image: {error}; it is tried again", retryable=True
        ) from error
    except TooMuch as error:
        raise BuildFailed("MaterialsTooLarge", f"there can be no bill of materials of the image: {error}") from error
    log("system", f"contains {_counts(packages)}")
    return await asyncio.to_thread(document, job, packages, job.files)


@asynccontextmanager
async def reading_materials(
    podman: Podman, image_id: str, job: TargetJob, log: BuildLog
) -> AsyncIterator[asyncio.Task[bytes]]:
    """As image_materials, while the block does something else; nothing of it runs when the block has ended."""
    reading = asyncio.create_task(image_materials(podman, image_id, job, log))
    try:
        yield reading
    finally:
        reading.cancel()
        await despite_cancel(asyncio.wait([reading]))
        # Where the block failed first, nobody asks how this ended.
        if not reading.cancelled():
            reading.exception()


async def attach(artifact: BuiltArtifact, materials: bytes, access: RegistryAccess) -> None:
    """Afterwards the document lies in the registry as a referrer of the artifact; again is harmless.

    Raises BuildFailed.
    """
    if not materials:
        return
    try:
        await attach_document(artifact.repository, artifact.digest, materials, MEDIA_TYPE, access)
    except RegistryUnreachable as error:
        raise BuildFailed(
            "RegistryUnreachable",
            f"cannot attach the bill of materials to {artifact.repository}@{artifact.digest}: {error}",
            retryable=True,
        ) from error


def _counts(packages: list[Package]) -> str:
    """ "80 deb, 12 pypi" """
    kinds = [package.purl.partition("/")[0].removeprefix("pkg:") for package in packages]
    counted = [f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))]
    return f"packages: {', '.join(counted)}" if counted else "no packages that a package manager knows"
