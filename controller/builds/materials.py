"""What is inside an image: a CycloneDX bill of materials, read from its files, and attached to the artifact."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controller.builds.cancelling import despite_cancel
from controller.builds.log import BuildLog
from controller.builds.materials_document import MEDIA_TYPE, document, packages_only
from controller.builds.materials_image import CannotRead, image_root
from controller.builds.materials_reading import Package, TooMuch, has_rpm, installed_packages, rpm_packages
from controller.builds.materials_rpm import rpm_listing
from controller.builds.model import BuildFailed, TargetJob
from controller.builds.podman import Podman
from controller.builds.referrers import add_referrer
from controller.builds.registry import Manifest
from controller.builds.registry_session import RegistrySession, RegistryUnreachable


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


async def attach(session: RegistrySession, artifact: Manifest, materials: bytes) -> None:
    """Afterwards the bill of the artifact's packages lies in the registry as a referrer of it; again is harmless.

    Without the user's own files, whose digests would make it another one with each change of code: it is sent only
    where packages have changed. `session` is one that pushes. Raises BuildFailed.
    """
    if not materials:
        return
    subject = {"mediaType": artifact.media_type, "digest": artifact.digest, "size": len(artifact.body)}
    try:
        packages = await asyncio.to_thread(packages_only, materials)
        await add_referrer(session, subject, packages, MEDIA_TYPE)
    except RegistryUnreachable as error:
        raise BuildFailed(
            "RegistryUnreachable",
            f"cannot attach the bill of materials to {session.host}/{session.name}@{artifact.digest}: {error}",
            retryable=True,
        ) from error


def _counts(packages: list[Package]) -> str:
    """ "80 deb, 12 pypi" """
    kinds = [package.purl.partition("/")[0].removeprefix("pkg:") for package in packages]
    counted = [f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))]
    return f"packages: {', '.join(counted)}" if counted else "no packages that a package manager knows"
