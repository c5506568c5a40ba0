"""The controller's HTTPS server."""

import ssl
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import structlog
from aiohttp import BasicAuth, web

from controller.store.access import Principal, Role
from controller.web.registry_tokens import ACCESS_LIFETIME, SHORT, RegistryTokens, parse_scopes

log = structlog.get_logger()
# Repositories (without the registry's address) that a device may pull from.
Pullable = Callable[[str], Awaitable[Collection[str]]]


class WebServer:
    """`GET /registry/token` for the registry's clients, `GET /healthz` for load balancers.

    Below `/registry/token/short` the tokens name their key: for the registry that runs beside the controller.
    """

    def __init__(self, tokens: RegistryTokens, pullable: Pullable) -> None:
        self._tokens = tokens
        self._pullable = pullable
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, certificate: Path, key: Path) -> None:
        """Afterwards it answers. OSError where the port is taken."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/registry/token", self._token),
                web.get(f"/registry/token{SHORT}", self._token),
                web.get("/healthz", self._health),
            ]
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=context).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _token(self, request: web.Request) -> web.Response:
        principal = self._authenticate(request)
        if principal is None:
            raise web.HTTPUnauthorized(
                headers={"WWW-Authenticate": 'Basic realm="longshore"'}, text="bad credentials\n"
            )
        scopes = parse_scopes(request.query.getall("scope", []))
        pullable = await self._pullable(principal.name) if principal.role is Role.DEVICE else ()
        service, short = request.query.get("service", ""), request.path.endswith(SHORT)
        token = self._tokens.access_token(principal, service, scopes, pullable, short)
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        lifetime = int(ACCESS_LIFETIME.total_seconds())
        return web.json_response(
            {"token": token, "access_token": token, "expires_in": lifetime, "issued_at": issued},
            headers={"Cache-Control": "no-store"},
        )

    def _authenticate(self, request: web.Request) -> Principal | None:
        try:
            auth = BasicAuth.decode(request.headers.get("Authorization", ""))
        except ValueError:
            return None
        return self._tokens.principal(auth.login, auth.password)
