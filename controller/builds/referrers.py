"""Documents that belong to an artifact: small OCI artifacts whose `subject` it is, and the list of them.

The OCI distribution specification 1.1, "Listing Referrers" and "Referrers Tag Schema":
https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from controller.builds.blobs import Blob, blob_of, push_blob
from controller.builds.model import RegistryAccess
from controller.builds.registry import (
    ACCEPT,
    INDEX_TYPE,
    MANIFEST_TYPE,
    MANIFEST_TYPES,
    digest_of,
    manifest_of,
    send_manifest,
)
from controller.builds.registry_session import RegistrySession, RegistryUnreachable, require

EMPTY = blob_of("application/vnd.oci.empty.v1+json", b"{}")


async def attach_document(
    repository: str, digest: str, document: bytes, media_type: str, access: RegistryAccess
) -> str:
    """Afterwards the document is a referrer of the artifact `digest`; again is harmless. Returns the referrer's digest.

    Listed under the tag that the specification names for registries without the referrers API, which is right for
    those with it too: they list it by its subject. Raises RegistryUnreachable.
    """
    async with RegistrySession(repository, access, pushes=True) as session:
        subject = await _subject(session, digest)
        return await add_referrer(session, subject, await send_document(session, document, media_type))


async def send_document(session: RegistrySession, document: bytes, media_type: str) -> Blob:
    """Afterwards all is there that a referrer with this document names, but not yet what it refers to. `session` is one
    that pushes. Raises RegistryUnreachable."""
    blob = blob_of(media_type, document)
    await push_blob(session, blob)
    await push_blob(session, EMPTY)
    return blob


async def add_referrer(session: RegistrySession, subject: Mapping[str, object], document: Blob) -> str:
    """As attach_document, of a document that was sent; `subject` describes the artifact."""
    body = _referrer(subject, document)
    await send_manifest(session, digest_of(body), body, MANIFEST_TYPE)
    await _list(session, str(subject["digest"]), body, document.media_type)
    return digest_of(body)


async def referrers(repository: str, digest: str, access: RegistryAccess) -> list[dict[str, Any]]:
    """Descriptors of what refers to the artifact. Raises RegistryUnreachable."""
    async with RegistrySession(repository, access) as session:
        return await _listed(session, digest)


def tag_of(digest: str) -> str:
    """The tag of the list of an artifact's referrers."""
    return digest.replace(":", "-", 1)


async def _subject(session: RegistrySession, digest: str) -> dict[str, object]:
    """The descriptor of the artifact. Raises RegistryUnreachable, also for an answer that is not a registry's."""
    async with session.request("HEAD", f"manifests/{digest}", headers=ACCEPT) as answer:
        await require(answer, 200)
        length = answer.headers.get("Content-Length", "")
        if answer.content_type not in MANIFEST_TYPES or not (length.isascii() and length.isdecimal()):
            raise RegistryUnreachable(
                f"{session.host} answers {session.name}, manifests/{digest}, with what is no manifest: "
                f"{answer.content_type} of {length or 'unknown'} bytes"
            )
        return {"mediaType": answer.content_type, "digest": digest, "size": int(length)}


def _referrer(subject: Mapping[str, object], blob: Blob) -> bytes:
    return artifact_manifest(blob.media_type, EMPTY, [blob], subject=subject)


async def _listed(session: RegistrySession, digest: str) -> list[dict[str, Any]]:
    index = await manifest_of(session, tag_of(digest))
    return [] if index is None else list(json.loads(index.body).get("manifests") or ())


async def _list(session: RegistrySession, digest: str, body: bytes, artifact_type: str) -> None:
    known = await _listed(session, digest)
    entry = {
        "mediaType": MANIFEST_TYPE, "digest": digest_of(body), "size": len(body), "artifactType": artifact_type,
    }  # fmt: skip
    if entry in known:
        return
    # One document of a kind: that of an earlier try gives way.
    others = [other for other in known if other.get("artifactType") != artifact_type]
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*others, entry]}
    await send_manifest(session, tag_of(digest), canonical(index), INDEX_TYPE)


def artifact_manifest(artifact_type: str, config: Blob, layers: Iterable[Blob], **more: object) -> bytes:
    """As the OCI image specification has it, "Guidelines for Artifact Usage"; the same for the same content."""
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": artifact_type,
            "config": config.descriptor(),
            "layers": [layer.descriptor() for layer in layers],
            **more,
        }
    )


def canonical(document: object) -> bytes:
    """JSON that is the same for the same content."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
