"""Documents that belong to an artifact: small OCI artifacts whose `subject` it is, and the list of them.

The OCI distribution specification 1.1, "Listing Referrers" and "Referrers Tag Schema":
https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import json
from typing import Any

from controller.builds.blobs import Blob, blob_of, push_blob
from controller.builds.model import RegistryAccess
from controller.builds.registry import (
    INDEX_TYPE,
    MANIFEST_TYPE,
    Manifest,
    digest_of,
    get_manifest,
    put_manifest,
    read_manifest,
)
from controller.builds.registry_session import RegistrySession

EMPTY = blob_of("application/vnd.oci.empty.v1+json", b"{}")


async def attach_document(
    repository: str, digest: str, document: bytes, media_type: str, access: RegistryAccess
) -> str:
    """Afterwards the document is a referrer of the artifact `digest`; again is harmless. Returns the referrer's digest.

    Listed under the tag that the specification names for registries without the referrers API, which is right for
    those with it too: they list it by its subject. Raises RegistryUnreachable.
    """
    subject = await read_manifest(repository, digest, access)
    blob = blob_of(media_type, document)
    async with RegistrySession(repository, access) as session:
        for part in (EMPTY, blob):
            await push_blob(session, part)
    body = _referrer(subject, blob)
    referrer = digest_of(body)
    await put_manifest(repository, referrer, body, MANIFEST_TYPE, access)
    await _list(repository, subject, body, media_type, access)
    return referrer


async def referrers(repository: str, digest: str, access: RegistryAccess) -> list[dict[str, Any]]:
    """Descriptors of what refers to the artifact. Raises RegistryUnreachable."""
    index = await get_manifest(repository, tag_of(digest), access)
    return [] if index is None else list(json.loads(index.body)["manifests"])


def tag_of(digest: str) -> str:
    """The tag of the list of an artifact's referrers."""
    return digest.replace(":", "-", 1)


def _referrer(subject: Manifest, blob: Blob) -> bytes:
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": blob.media_type,
            "config": EMPTY.descriptor(),
            "layers": [blob.descriptor()],
            "subject": {"mediaType": subject.media_type, "digest": subject.digest, "size": len(subject.body)},
        }
    )


async def _list(repository: str, subject: Manifest, body: bytes, artifact_type: str, access: RegistryAccess) -> None:
    known = await referrers(repository, subject.digest, access)
    entry = {
        "mediaType": MANIFEST_TYPE, "digest": digest_of(body), "size": len(body), "artifactType": artifact_type,
    }  # fmt: skip
    if entry in known:
        return
    # One document of a kind: that of an earlier try gives way.
    others = [other for other in known if other.get("artifactType") != artifact_type]
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*others, entry]}
    await put_manifest(repository, tag_of(subject.digest), canonical(index), INDEX_TYPE, access)


def canonical(document: object) -> bytes:
    """JSON that is the same for the same content."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
