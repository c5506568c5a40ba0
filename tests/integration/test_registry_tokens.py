"""Registries whose challenges and tokens are not as they should be, behind real TLS."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from controller.builds import registry
from controller.builds.model import RegistryAccess
from controller.builds.registry_session import RegistryUnreachable
from controller.pki import CertificateAuthority


@asynccontextmanager
async def strange_registry(folder: Path, challenge: str, answer: bytes) -> AsyncIterator[RegistryAccess]:
    """Asks everybody for a token; `{realm}` in the challenge is where it answers with `answer`."""
    authority = CertificateAuthority.create(folder / "ca")
    certificate, key = authority.issue_server(["127.0.0.1"]).write(folder, "registry")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    address = ""

    async def handle(request: web.BaseRequest) -> web.Response:
        if request.path == "/token":
            return web.Response(body=answer)
        headers = {"WWW-Authenticate": challenge.format(realm=f"https://{address}/token")}
        return web.Response(status=401, headers=headers)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        address = f"127.0.0.1:{runner.addresses[0][1]}"
        yield RegistryAccess(address, folder / "ca" / "ca.crt", lambda: ("user", "password"))
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("challenge", "answer", "said"),
    [
        ('Bearer service="x"', b"", "does not say where to get one"),
        ("Bearer", b"", "does not say where to get one"),
        ('Bearer realm="nowhere at all"', b"", "cannot be reached"),
        ('Bearer realm="{realm}"', b"{}", "gives no token"),
        ('Bearer realm="{realm}"', b"[1]", "gives no token"),
        ('Bearer realm="{realm}"', b"<html>\xff", "gives no token"),
        ('Bearer realm="{realm}"', b'{"token": 7}', "gives no token"),
        ('Bearer realm="{realm}"', b'{"token": "a\\r\\nHost: b"}', "gives no token"),
    ],
)
async def test_a_registry_that_gives_no_token_is_one_that_cannot_be_used_now(
    tmp_path: Path, challenge: str, answer: bytes, said: str
) -> None:
    async with strange_registry(tmp_path, challenge, answer) as access:
        with pytest.raises(RegistryUnreachable, match=said):
            await registry.has_manifest(f"{access.address}/alice/digits", "latest", access)
