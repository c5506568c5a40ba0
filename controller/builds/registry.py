"""What the builder asks of registries by HTTP: does one answer, and what did a push leave there.

The OCI distribution API: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import asyncio
import base64
import hashlib
import json
import re
import ssl
from dataclasses import dataclass

import aiohttp

from controller.builds.model import RegistryAccess

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
# Where the API of a registry lives, when not under its name.
API_HOSTS = {"docker.io": "registry-1.docker.io"}
CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class RegistryUnreachable(Exception):
    """No answer, or not a registry's; the text says what came instead."""


@dataclass(frozen=True)
class Manifest:
    """A manifest as the registry holds it; `size_bytes` counts its layers and its configuration."""

    digest: str
    size_bytes: int


async def check_answers(registry: str, timeout: float, access: RegistryAccess | None = None) -> None:
    """Returns when the registry of this name speaks the registry API. Raises RegistryUnreachable."""
    host = API_HOSTS.get(registry, registry)
    try:
        async with _session(timeout, access) as session, session.get(f"https://{host}/v2/") as response:
            speaks = response.status in (200, 401) or "Docker-Distribution-Api-Version" in response.headers
            if not speaks or response.status >= 500:
                raise RegistryUnreachable(f"{registry} answers with HTTP status {response.status}")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise RegistryUnreachable(f"{registry} cannot be reached: {error or type(error).__name__}") from error


async def read_manifest(repository: str, digest: str, access: RegistryAccess, timeout: float = 30.0) -> Manifest:
    """The manifest of this digest, its content checked. Raises RegistryUnreachable."""
    host, _, name = repository.partition("/")
    url = f"https://{host}/v2/{name}/manifests/{digest}"
    try:
        async with _session(timeout, access) as session:
            body = await _get(session, url, access)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise RegistryUnreachable(f"{host} cannot be reached: {error or type(error).__name__}") from error
    if f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
        raise RegistryUnreachable(f"{host} answers {repository}@{digest} with something else")
    document = json.loads(body)
    return Manifest(digest, sum(int(part["size"]) for part in (document["config"], *document["layers"])))


async def _get(session: aiohttp.ClientSession, url: str, access: RegistryAccess) -> bytes:
    headers = {"Accept": ", ".join(MANIFEST_TYPES)}
    async with session.get(url, headers=headers) as response:
        if response.status == 200:
            return await response.read()
        challenge = response.headers.get("WWW-Authenticate", "")
        if response.status != 401:
            raise RegistryUnreachable(f"{url} answers with HTTP status {response.status}")
    headers["Authorization"] = await _authorization(session, challenge, access)
    async with session.get(url, headers=headers) as response:
        if response.status != 200:
            raise RegistryUnreachable(f"{url} answers with HTTP status {response.status}")
        return await response.read()


async def _authorization(session: aiohttp.ClientSession, challenge: str, access: RegistryAccess) -> str:
    """The header that a challenge asks for: https://distribution.github.io/distribution/spec/auth/token/"""
    user, password = await asyncio.to_thread(access.credentials)
    basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    if not challenge.lower().startswith("bearer"):
        return basic
    fields = dict(CHALLENGE.findall(challenge))
    query = {key: fields[key] for key in ("service", "scope") if key in fields}
    async with session.get(fields["realm"], params=query, headers={"Authorization": basic}) as response:
        if response.status != 200:
            raise RegistryUnreachable(f"{fields['realm']} gives no token: HTTP status {response.status}")
        answer = await response.json(content_type=None)
    return f"Bearer {answer.get('token') or answer['access_token']}"


def _session(timeout: float, access: RegistryAccess | None) -> aiohttp.ClientSession:
    trust = ssl.create_default_context()
    if access is not None and access.ca_file is not None:
        trust.load_verify_locations(access.ca_file)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust), timeout=aiohttp.ClientTimeout(total=timeout), trust_env=True
    )
