"""Removes artifacts, with the documents attached to them, from the registry.

"Deleting Manifests" of the OCI distribution API; what the manifests named is freed by the registry itself:
https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import json

from controller.builds.model import RegistryAccess
from controller.builds.referrers import tag_of
from controller.builds.registry import get_manifest
from controller.builds.registry_session import RegistrySession, require

GONE, REMOVED = 404, 202


async def remove_artifact(repository: str, digest: str, access: RegistryAccess) -> None:
    """Afterwards the artifact has no name there: not this digest, no tag, no document that belongs to it. Harmless
    where it was not there. Raises RegistryUnreachable, RegistryRefused."""
    documents = await get_manifest(repository, tag_of(digest), access)
    attached = [] if documents is None else [entry["digest"] for entry in json.loads(documents.body)["manifests"]]
    listed = [] if documents is None else [documents.digest]
    for reference in (digest, *attached, *listed):
        await _remove(repository, reference, access)


async def _remove(repository: str, digest: str, access: RegistryAccess) -> None:
    async with (
        RegistrySession(repository, access) as session,
        session.request("DELETE", f"manifests/{digest}") as answer,
    ):
        await require(answer, REMOVED, GONE)
