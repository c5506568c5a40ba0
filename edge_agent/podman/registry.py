"""How large an image is, asked from its registry before it is fetched (OCI Distribution, token authentication).

For progress only: whatever goes wrong here makes the size unknown, and the pull itself tells what is wrong.
"""

import base64
import http.client
import json
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import structlog

from edge_agent.runtime.model import Artifact

TIMEOUT = 5.0
MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
CHALLENGE = re.compile(r'(\w+)="([^"]*)"')

log = structlog.get_logger()


def total_size(artifact: Artifact, credentials: tuple[str, str], authority: Path | None) -> int:
    """Bytes of the artifact's layers as they lie in the registry; 0 where that cannot be learned. Blocks."""
    registry, _, repository = artifact.repository.partition("/")
    url = f"https://{registry}/v2/{repository}/manifests/{artifact.digest}"
    try:
        context = ssl.create_default_context(cafile=str(authority) if authority else None)
        manifest = json.loads(_get(url, credentials, context))
        return sum(int(layer["size"]) for layer in manifest.get("layers", ()))
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        log.debug("image_size_unknown", url=url, error=str(error))
        return 0


def _get(url: str, credentials: tuple[str, str], context: ssl.SSLContext) -> bytes:
    basic = "Basic " + base64.b64encode(":".join(credentials).encode()).decode()
    try:
        return _request(url, basic, context)
    except urllib.error.HTTPError as error:
        with error:
            challenge = error.headers.get("WWW-Authenticate", "")
        if error.code != 401 or not challenge.startswith("Bearer "):
            raise
    asked = dict(CHALLENGE.findall(challenge))
    query = urllib.parse.urlencode({key: asked[key] for key in ("service", "scope") if key in asked})
    answer = json.loads(_request(f"{asked['realm']}?{query}", basic, context))
    return _request(url, f"Bearer {answer.get('token') or answer['access_token']}", context)


def _request(url: str, authorization: str, context: ssl.SSLContext) -> bytes:
    if not url.startswith("https://"):
        raise ValueError(f"not asked without TLS: {url}")
    request = urllib.request.Request(url, headers={"Authorization": authorization, "Accept": MANIFESTS})
    with urllib.request.urlopen(request, timeout=TIMEOUT, context=context) as response:
        content: bytes = response.read()
        return content
