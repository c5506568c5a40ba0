"""What is asked of registries by HTTP: does one answer, which manifests lie there; and new manifests are put there.

The OCI distribution API: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from controller.builds.model import RegistryAccess
from controller.builds.registry_session import API_HOSTS, RegistrySession, RegistryUnreachable, open_session, require

__all__ = [
    "INDEX_TYPE", "MANIFEST_TYPE", "Manifest", "RegistryUnreachable", "check_answers", "get_manifest", "has_manifest",
    "put_manifest", "read_manifest",
]  # fmt: skip

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPES = (
    MANIFEST_TYPE,
    INDEX_TYPE,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
SCHEMA = 2
# So much of a strange answer is shown to people, in bytes.
SHOWN = 200
ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}


@dataclass(frozen=True)
class Manifest:
    """A manifest as the registry holds it; `size_bytes` counts its layers and its configuration, of an index the
    manifests that it names."""

    digest: str
    size_bytes: int
    body: bytes = b""
    media_type: str = ""


async def check_answers(registry: str, timeout: float, access: RegistryAccess | None = None) -> None:
    """Returns when the registry of this name speaks the registry API. Raises RegistryUnreachable."""
    host = API_HOSTS.get(registry, registry)
    try:
        async with open_session(timeout, access) as session, session.get(f"https://{host}/v2/") as response:
            speaks = response.status in (200, 401) or "Docker-Distribution-Api-Version" in response.headers
            if not speaks or response.status >= 500:
                raise RegistryUnreachable(f"{registry} answers with HTTP status {response.status}")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise RegistryUnreachable(f"{registry} cannot be reached: {error or type(error).__name__}") from error


async def read_manifest(repository: str, digest: str, access: RegistryAccess, timeout: float = 30.0) -> Manifest:
    """The manifest of this digest, its content checked. Raises RegistryUnreachable, also where it is not there."""
    async with RegistrySession(repository, access, timeout) as session:
        return await checked_manifest(session, digest)


async def get_manifest(
    repository: str, reference: str, access: RegistryAccess, timeout: float = 30.0
) -> Manifest | None:
    """The manifest or index of this tag or digest; None where there is none. Raises RegistryUnreachable."""
    async with RegistrySession(repository, access, timeout) as session:
        return await manifest_of(session, reference)


async def has_manifest(repository: str, reference: str, access: RegistryAccess, timeout: float = 30.0) -> bool:
    """Whether the registry holds a manifest or index of this tag or digest. Raises RegistryUnreachable."""
    async with (
        RegistrySession(repository, access, timeout) as session,
        session.request("HEAD", f"manifests/{reference}", headers=ACCEPT) as answer,
    ):
        await require(answer, 200, 404)
        return answer.status == 200


async def put_manifest(
    repository: str, reference: str, body: bytes, media_type: str, access: RegistryAccess, timeout: float = 30.0
) -> str:
    """Afterwards the registry holds this manifest or index under the tag or digest; again is harmless.

    Returns its digest. All that it names has to be there. Raises RegistryUnreachable.
    """
    async with RegistrySession(repository, access, timeout) as session:
        return await send_manifest(session, reference, body, media_type)


async def manifest_of(session: RegistrySession, reference: str) -> Manifest | None:
    """As get_manifest, as one of several requests of a session."""
    async with session.request("GET", f"manifests/{reference}", headers=ACCEPT) as answer:
        if answer.status == 404:
            return None
        await require(answer, 200)
        body = await answer.read()
        return Manifest(digest_of(body), _size(session, reference, body), body, answer.content_type)


async def checked_manifest(session: RegistrySession, digest: str) -> Manifest:
    """As read_manifest, as one of several requests of a session."""
    manifest = await manifest_of(session, digest)
    if manifest is None:
        raise RegistryUnreachable(f"{session.host}/{session.name}@{digest} is not there: HTTP status 404")
    if manifest.digest != digest:
        raise RegistryUnreachable(f"{session.host} answers {session.host}/{session.name}@{digest} with something else")
    return manifest


async def send_manifest(session: RegistrySession, reference: str, body: bytes, media_type: str) -> str:
    """As put_manifest, as one of several requests of a session."""
    headers = {"Content-Type": media_type}
    async with session.request("PUT", f"manifests/{reference}", headers=headers, data=body) as answer:
        await require(answer, 200, 201)
    return digest_of(body)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _size(session: RegistrySession, reference: str, body: bytes) -> int:
    """What the manifest's parts count together. Raises RegistryUnreachable for what is no manifest: a proxy may answer
    in the registry's place."""
    try:
        return sum(map(_part_size, _parts(json.loads(body))))
    # Bytes that are no text are a ValueError too, and lists without end a RecursionError.
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        words = body[:SHOWN].decode(errors="replace").strip()
        raise RegistryUnreachable(
            f"{session.host} answers {session.name}, manifests/{reference}, with what is no manifest: {words!r}"
        ) from error


def _parts(document: dict[str, Any]) -> list[dict[str, object]]:
    if document["schemaVersion"] != SCHEMA:
        raise ValueError(f"schemaVersion is not {SCHEMA}")
    config, layers, manifests = (document.get(key) or [] for key in ("config", "layers", "manifests"))
    return [*([config] if config else []), *layers, *manifests]


def _part_size(part: dict[str, object]) -> int:
    size = part["size"]
    if not isinstance(size, int):
        raise ValueError("a size is not a number")
    return size
