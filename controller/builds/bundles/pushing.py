"""Sends a bundle to the registry: what it has already is not sent again."""

import asyncio
from collections.abc import Sequence

from controller.builds.blobs import Blob, push_blob
from controller.builds.log import BuildLog
from controller.builds.model import BuildFailed, RegistryAccess, TargetJob
from controller.builds.registry import MANIFEST_TYPE, digest_of, put_manifest
from controller.builds.registry_session import RegistryRefused, RegistrySession, RegistryUnreachable

PARALLEL = 4


async def push_bundle(
    job: TargetJob, blobs: Sequence[Blob], manifest: bytes, access: RegistryAccess, log: BuildLog
) -> None:
    """Afterwards the bundle is there under its digest and the build's id. Raises BuildFailed."""
    log("system", f"pushing {job.repository}:{job.build_id}")
    try:
        sent = await _push_blobs(job.repository, blobs, access)
        await put_manifest(job.repository, job.build_id, manifest, MANIFEST_TYPE, access)
    except RegistryRefused as error:
        raise _refused(job, error) from error
    except RegistryUnreachable as error:
        raise BuildFailed(
            "RegistryUnreachable", f"cannot push {job.repository}: {error}; it is tried again", retryable=True
        ) from error
    log("system", f"pushed {job.repository}@{digest_of(manifest)}, {sent} bytes sent")


async def _push_blobs(repository: str, blobs: Sequence[Blob], access: RegistryAccess) -> int:
    slots = asyncio.Semaphore(PARALLEL)
    async with RegistrySession(repository, access, timeout=None) as session:

        async def one(blob: Blob) -> int:
            async with slots:
                return await push_blob(session, blob)

        # A wheel's content may be in the list twice.
        tasks = [asyncio.ensure_future(one(blob)) for blob in {blob.digest: blob for blob in blobs}.values()]
        try:
            return sum(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _refused(job: TargetJob, error: RegistryRefused) -> BuildFailed:
    if "HTTP status 401" in str(error) or "HTTP status 403" in str(error):
        return BuildFailed(
            "RegistryRefused",
            f"the registry refuses {job.repository}: {error}; check the controller's credentials for it",
        )
    return BuildFailed("RegistryUnreachable", f"cannot push {job.repository}: {error}", retryable=True)
