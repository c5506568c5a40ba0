"""Sends a bundle to the registry: what it has already is not sent again."""

import asyncio
from collections.abc import Sequence

from controller.builds.blobs import Blob, has_blob, send_blob
from controller.builds.log import BuildLog
from controller.builds.model import BuildFailed, TargetJob
from controller.builds.registry import MANIFEST_TYPE, digest_of, send_manifest
from controller.builds.registry_session import RegistryRefused, RegistrySession, RegistryUnreachable
from controller.spec.model import bundle_tag

PARALLEL = 4


async def push_bundle(
    job: TargetJob, blobs: Sequence[Blob], manifest: bytes, session: RegistrySession, log: BuildLog
) -> None:
    """Afterwards the bundle is there under its digest, and under the build's id with the target's key behind: the id
    alone is the name of the build's images. `session` is one that pushes. Raises BuildFailed."""
    tag = bundle_tag(job.build_id, job.target)
    log("system", f"pushing {job.repository}:{tag}")
    try:
        sent = await _push_blobs(session, blobs)
        await send_manifest(session, tag, manifest, MANIFEST_TYPE)
    except RegistryRefused as error:
        raise _refused(job, error) from error
    except RegistryUnreachable as error:
        raise BuildFailed(
            "RegistryUnreachable", f"cannot push {job.repository}: {error}; it is tried again", retryable=True
        ) from error
    log("system", f"pushed {job.repository}@{digest_of(manifest)}, {sent} bytes sent")


async def _push_blobs(session: RegistrySession, blobs: Sequence[Blob]) -> int:
    slots = asyncio.Semaphore(PARALLEL)

    async def one(blob: Blob) -> int:
        async with slots:
            return await send_blob(session, blob)

    # Asked on one connection: each further one costs more bytes than many questions. Two packages may be one wheel.
    by_digest = {blob.digest: blob for blob in blobs}
    missing = [blob for digest, blob in by_digest.items() if not await has_blob(session, digest)]
    tasks = [asyncio.ensure_future(one(blob)) for blob in missing]
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
