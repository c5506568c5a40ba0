"""Removes artifacts, with the documents attached to them, from the registry.

"Deleting Manifests" of the OCI distribution API; what the manifests named is freed by the registry itself:
https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import json

from controller.builds.model import RegistryAccess
from controller.builds.referrers import tag_of
from controller.builds.registry import INDEX_TYPE, get_manifest
from controller.builds.registry_session import RegistrySession, require

GONE, REMOVED = 404, 202


async def remove_artifact(repository: str, digest: str, access: RegistryAccess) -> None:
    """Afterwards the artifact has no name there: not this digest, no tag, no document that belongs to it. What else may
    lie under the name of its documents' list stays. Harmless where it was not there. Raises RegistryUnreachable,
    RegistryRefused."""
    listed = await get_manifest(repository, tag_of(digest), access)
    entries = [] if listed is None else _listed(listed.body)
    documents = [entry for entry in entries if await _belongs(repository, entry, digest, access)]
    # A list that names anything else is not ours.
    ours = listed is not None and listed.media_type == INDEX_TYPE and documents == entries
    lists = [listed.digest] if listed is not None and ours else []
    for reference in (digest, *documents, *lists):
        await _remove(repository, reference, access)


def _listed(body: bytes) -> list[str]:
    """Digests of what an index names."""
    return [entry["digest"] for entry in json.loads(body).get("manifests", ())]


async def _belongs(repository: str, document: str, digest: str, access: RegistryAccess) -> bool:
    """Whether it is a document of this artifact, or gone."""
    found = await get_manifest(repository, document, access)
    return found is None or (json.loads(found.body).get("subject") or {}).get("digest") == digest


async def _remove(repository: str, digest: str, access: RegistryAccess) -> None:
    async with (
        RegistrySession(repository, access) as session,
        session.request("DELETE", f"manifests/{digest}") as answer,
    ):
        await require(answer, REMOVED, GONE)
