"""Requests to one repository of a registry: trust, credentials and tokens are seen to here.

The OCI distribution API: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import asyncio
import base64
import functools
import io
import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from controller.builds.model import RegistryAccess

# Where the API of a registry lives, when not under its name.
API_HOSTS = {"docker.io": "registry-1.docker.io"}
CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
SENDABLE = re.compile(r"[\x21-\x7e]+")
# Seconds in which a connection must be made, and in which something must come on it.
CONNECT, SILENCE = 15.0, 60.0


class RegistryUnreachable(Exception):
    """No answer, or not a registry's; the text says what came instead."""


class RegistryRefused(RegistryUnreachable):
    """It answered, and would not do it."""


class RegistrySession:
    """Requests to `repository` (host:port/name). Use as an async context manager.

    `timeout`: seconds for each whole request; None where only silence counts, as for blobs. `pushes`: something is to
    be put there too, so that the first token is one for all requests.
    """

    def __init__(
        self, repository: str, access: RegistryAccess, timeout: float | None = 30.0, pushes: bool = False
    ) -> None:
        self.host, _, self.name = repository.partition("/")
        self._base = URL(f"https://{API_HOSTS.get(self.host, self.host)}/v2/{self.name}/")
        self._access = access
        self._timeout = timeout
        self._pushes = pushes
        self._authorization = ""

    async def __aenter__(self) -> Self:
        self._session = open_session(self._timeout, self._access)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, whatever its status, but 401 only where credentials do not help.

        `path` is below the repository, or a whole URL that the registry told. Raises RegistryUnreachable.
        """
        url = self._base.join(URL(path, encoded="://" in path))
        if params:
            url = url.update_query(params)
        try:
            async with AsyncExitStack() as stack:
                answer = await self._send(stack, method, url, headers or {}, data)
                challenge = answer.headers.get("WWW-Authenticate", "")
                if answer.status == 401 and url.host == self._base.host:
                    answer.release()
                    self._authorization = await self._authorize(challenge)
                    answer = await self._send(stack, method, url, headers or {}, data)
                yield answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RegistryUnreachable(f"{self.host} cannot be reached: {error or type(error).__name__}") from error

    async def _send(
        self, stack: AsyncExitStack, method: str, url: URL, headers: Mapping[str, str], data: bytes | None
    ) -> aiohttp.ClientResponse:
        all_headers = dict(headers)
        # A registry may send its clients to another host, which must not learn the token.
        if self._authorization and url.host == self._base.host:
            all_headers["Authorization"] = self._authorization
        body = None if data is None else io.BytesIO(data)
        return await stack.enter_async_context(self._session.request(method, url, headers=all_headers, data=body))

    async def _authorize(self, challenge: str) -> str:
        """The header that a challenge asks for: https://distribution.github.io/distribution/spec/auth/token/"""
        basic = await self._basic()
        if not challenge.lower().startswith("bearer"):
            return basic
        fields = dict(CHALLENGE.findall(challenge))
        realm = fields.get("realm", "")
        if not realm:
            raise RegistryUnreachable(f"{self.host} asks for a token and does not say where to get one")
        query = {key: fields[key] for key in ("service", "scope") if key in fields}
        if self._pushes and query.get("scope") == (pull := f"repository:{self.name}:pull"):
            query["scope"] = f"{pull},push"
        headers = {"Authorization": basic} if basic else {}
        async with self._session.get(realm, params=query, headers=headers) as response:
            if response.status != 200:
                refused = 400 <= response.status < 500
                error = RegistryRefused if refused else RegistryUnreachable
                raise error(f"{realm} gives no token: HTTP status {response.status}")
            token = _token(await response.read())
        if not token:
            raise RegistryUnreachable(f"{realm} gives no token: it answers with something else")
        return f"Bearer {token}"

    async def _basic(self) -> str:
        """Our credentials are for our registry only; others are asked without."""
        if self.host != self._access.address:
            return ""
        user, password = await asyncio.to_thread(self._access.credentials)
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _token(body: bytes) -> str:
    """What an answer to a challenge holds; "" where it holds none that can be sent."""
    try:
        fields = json.loads(body)
    except ValueError:
        return ""
    found = fields.get("token") or fields.get("access_token") if isinstance(fields, dict) else None
    return found if isinstance(found, str) and SENDABLE.fullmatch(found) else ""


async def require(answer: aiohttp.ClientResponse, *statuses: int) -> None:
    """Returns when the answer has one of these statuses. Raises RegistryRefused with the registry's words."""
    if answer.status not in statuses:
        text = (await answer.text(errors="replace"))[:300].strip()
        raise RegistryRefused(f"{answer.url.with_query(None)} answers with HTTP status {answer.status}: {text}")


def open_session(timeout: float | None, access: RegistryAccess | None) -> aiohttp.ClientSession:
    """A session that trusts what this machine trusts, and the registry's own authority. Close it."""
    ca_file = None if access is None else access.ca_file
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=_trust(ca_file, ca_file.stat().st_mtime_ns if ca_file else 0)),
        timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT, sock_read=SILENCE),
        trust_env=True,
    )


@functools.lru_cache(maxsize=8)
def _trust(ca_file: Path | None, changed: int) -> ssl.SSLContext:
    """Reading all authorities of a machine takes tens of milliseconds. `changed`: of the file, in nanoseconds."""
    trust = ssl.create_default_context()
    if ca_file is not None:
        trust.load_verify_locations(ca_file)
    return trust
