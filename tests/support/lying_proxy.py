"""A server in front of a real registry that now and then answers in its place, as a proxy's page or a login does."""

import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from controller.builds.model import RegistryAccess
from tests.support.registry import RegistryUnderTest

PAGE = b"<html><body>Sign in to the network</body></html>"
# Of one connection, and of a body that is sent anew.
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"}


@dataclass(frozen=True)
class Lie:
    """What is answered to requests of this method whose path matches. `length`: whether the answer says how long it
    is."""

    method: str
    path: str
    body: bytes = PAGE
    media_type: str = "text/html"
    length: bool = True
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def fits(self, request: web.Request) -> bool:
        return request.method == self.method and re.search(self.path, request.path) is not None


@dataclass
class LyingProxy:
    """`lies` may be changed while it runs; `told` counts how often one was told."""

    target: str
    trust: ssl.SSLContext
    lies: list[Lie] = field(default_factory=list)
    told: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        lie = next((lie for lie in self.lies if lie.fits(request)), None)
        if lie is None:
            return await self._passed(request)
        self.told += 1
        answer = web.StreamResponse(status=lie.status, headers={"Content-Type": lie.media_type, **lie.headers})
        if lie.length:
            answer.content_length = len(lie.body)
        else:
            answer.enable_chunked_encoding()
        await answer.prepare(request)
        if request.method != "HEAD":
            await answer.write(lie.body)
        await answer.write_eof()
        return answer

    async def _passed(self, request: web.Request) -> web.Response:
        # With the name under which it was asked: the registry tells places of uploads by it. Some come several times.
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, f"https://{self.target}{request.raw_path}", headers=headers, ssl=self.trust,
                data=request.content if request.can_read_body else None, allow_redirects=False,
            ) as answer,
        ):  # fmt: skip
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            if request.method == "HEAD" and "Content-Length" in answer.headers:
                kept["Content-Length"] = answer.headers["Content-Length"]
            return web.Response(status=answer.status, headers=kept, body=await answer.read())


@asynccontextmanager
async def lying_proxy(server: RegistryUnderTest, folder: Path) -> AsyncIterator[tuple[LyingProxy, RegistryAccess]]:
    """Runs on a port of 127.0.0.1 until the block ends. Yields it, and the way to the registry that leads past it."""
    trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trust.load_cert_chain(*server.ca.issue_server(["127.0.0.1"]).write(folder, "proxy"))
    proxy = LyingProxy(server.address, ssl.create_default_context(cafile=str(server.ca_file)))
    application = web.Application(client_max_size=2**30)
    application.router.add_route("*", "/{path:.*}", proxy.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=trust).start()
    try:
        address = f"127.0.0.1:{runner.addresses[0][1]}"
        yield proxy, RegistryAccess(address, server.ca_file, server.push_credentials)
    finally:
        await runner.cleanup()
