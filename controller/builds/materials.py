"""What is inside an image: a CycloneDX bill of materials, read from its files, and attached to the artifact."""

import asyncio
import contextlib
from collections.abc import Iterator

from controller.builds.blobs import Blob
from controller.builds.log import BuildLog
from controller.builds.materials_document import MEDIA_TYPE, document, packages_only
from controller.builds.materials_image import CannotRead, image_root
from controller.builds.materials_reading import Package, TooMuch, has_rpm, installed_packages, rpm_packages
from controller.builds.materials_rpm import rpm_listing
from controller.builds.model import BuildFailed, TargetJob
from controller.builds.podman import Podman
from controller.builds.referrers import add_referrer, send_document
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


async def send_materials(session: RegistrySession, materials: bytes) -> Blob:
    """Afterwards the bill of packages is in the registry, not yet as a referrer of anything; again is harmless.

    Without the user's own files, whose digests would make it another one with each change of code: it is sent only
    where packages have changed. `session` is one that pushes. Raises BuildFailed.
    """
    packages = await asyncio.to_thread(packages_only, materials)
    with _attaching(f"{session.host}/{session.name}"):
        return await send_document(session, packages, MEDIA_TYPE)


async def attach(session: RegistrySession, artifact: Manifest, materials: Blob) -> None:
    """Afterwards the bill that was sent is a referrer of the artifact; again is harmless. Raises BuildFailed."""
    subject = {"mediaType": artifact.media_type, "digest": artifact.digest, "size": len(artifact.body)}
    with _attaching(f"{session.host}/{session.name}@{artifact.digest}"):
        await add_referrer(session, subject, materials)


@contextlib.contextmanager
def _attaching(artifact: str) -> Iterator[None]:
    try:
        yield
    except RegistryUnreachable as error:
        raise BuildFailed(
            "RegistryUnreachable", f"cannot attach the bill of materials to {artifact}: {error}", retryable=True
        ) from error


def _counts(packages: list[Package]) -> str:
    """ "80 deb, 12 pypi" """
    kinds = [package.purl.partition("/")[0].removeprefix("pkg:") for package in packages]
    counted = [f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))]
    return f"packages: {', '.join(counted)}" if counted else "no packages that a package manager knows"
