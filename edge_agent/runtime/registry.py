"""Pulling by digest from one repository of an OCI registry, with its token authentication. Blocks: for threads.

https://github.com/opencontainers/distribution-spec, https://distribution.github.io/distribution/spec/auth/token/
"""

import base64
import contextlib
import copy
import hashlib
import http.client
import json
import re
import socket
import ssl
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_agent.runtime.backend import BackendError

TIMEOUT = 30.0
MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
LARGEST_MANIFEST = 4 * 1024 * 1024
CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
MOST_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)


class Registry:
    """`repository` is "host:port/name". `authority` verifies the certificate besides the system's authorities.

    Raises BackendError with the reasons that Podman's pulls have: final "ImageNotFound", retryable "ImagePullDenied"
    and "ImagePullFailed".
    """

    def __init__(
        self, repository: str, credentials: tuple[str, str], authority: Path | None, timeout: float = TIMEOUT
    ) -> None:
        self._host, _, self._name = repository.partition("/")
        self._basic = "Basic " + base64.b64encode(":".join(credentials).encode()).decode() if credentials[0] else ""
        self._authorization = self._basic
        self._authority = authority
        self._timeout = timeout
        self._context: ssl.SSLContext | None = None
        self._connections: dict[str, http.client.HTTPSConnection] = {}

    def another(self) -> "Registry":
        """The same repository by connections of its own, which another thread may use, with the token that this one
        has by now."""
        other = copy.copy(self)
        other._connections = {}
        return other

    def manifest(self, digest: str) -> bytes:
        """The manifest of this digest; its content was checked."""
        with self._told(digest), self._answer(f"manifests/{digest}", {"Accept": MANIFESTS}) as answer:
            body = answer.read(LARGEST_MANIFEST + 1)
            if f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
                raise failed(self.reference(digest), "what came is not what its digest says")
            return body

    @contextlib.contextmanager
    def blob(self, digest: str, offset: int = 0) -> Iterator[tuple[int, Callable[[int], bytes]]]:
        """Where the content that comes really begins (at `offset`, or at 0 where the registry cannot begin in the
        middle), and what reads it piece by piece. The caller checks it."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with contextlib.ExitStack() as opened:
            with self._told(digest):
                answer = opened.enter_context(self._answer(f"blobs/{digest}", headers))

            def read(size: int) -> bytes:
                with self._told(digest):
                    return answer.read(size)

            yield (offset if answer.status == http.HTTPStatus.PARTIAL_CONTENT else 0), read

    def reference(self, digest: str) -> str:
        return f"{self._host}/{self._name}@{digest}"

    def close(self) -> None:
        """Also from another thread: an answer that is being read breaks off."""
        # Taken one by one: the thread that reads may take its own meanwhile.
        for host in tuple(self._connections):
            connection = self._connections.pop(host, None)
            if connection is None:
                continue
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()

    @contextlib.contextmanager
    def _told(self, digest: str) -> Iterator[None]:
        """What goes wrong inside is told in the words of the backend."""
        try:
            yield
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            self.close()
            raise failed(self.reference(digest), str(error) or type(error).__name__) from error

    @contextlib.contextmanager
    def _answer(self, path: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        url = f"https://{self._host}/v2/{self._name}/{path}"
        answer = self._follow(url, headers)
        if answer.status == http.HTTPStatus.UNAUTHORIZED:
            self._authorization = self._bearer(answer)
            answer = self._follow(url, headers)
        if answer.status >= 400:
            text = self._read(answer, LARGEST_MANIFEST).decode(errors="replace")
            raise _refusal(self.reference(path.partition("/")[2]), answer.status, text)
        try:
            yield answer
        finally:
            self._finish(answer)

    def _read(self, answer: http.client.HTTPResponse, size: int | None = None) -> bytes:
        """So much of an answer of which no more is wanted; all of it without a size."""
        try:
            return answer.read(size)
        finally:
            self._finish(answer)

    def _finish(self, answer: http.client.HTTPResponse) -> None:
        if not answer.isclosed():
            # What is left of it would be taken for the next answer, and it holds its connection open.
            answer.close()
            self.close()

    def _bearer(self, answer: http.client.HTTPResponse) -> str:
        """A token for this repository, as the registry's challenge says where to get it."""
        challenge = answer.headers.get("WWW-Authenticate", "")
        self._read(answer)
        if not challenge.startswith("Bearer "):
            return self._basic
        asked = dict(CHALLENGE.findall(challenge))
        query = urllib.parse.urlencode({key: asked[key] for key in ("service", "scope") if key in asked})
        url = urllib.parse.urlsplit(f"{asked['realm']}?{query}")
        given = self._get(url, {"Authorization": self._basic} if self._basic else {})
        text = self._read(given, LARGEST_MANIFEST)
        if given.status >= 400:
            raise _refusal(f"{self._host}/{self._name}", given.status, text.decode(errors="replace"))
        token = json.loads(text)
        return f"Bearer {token.get('token') or token['access_token']}"

    def _follow(self, address: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """A storage elsewhere to which the registry sends us must not see the token, and often refuses it."""
        for _ in range(MOST_REDIRECTS):
            url = urllib.parse.urlsplit(address)
            ours = {"Authorization": self._authorization} if url.netloc == self._host and self._authorization else {}
            answer = self._get(url, {**headers, **ours})
            if answer.status not in REDIRECTS:
                return answer
            self._read(answer)
            address = urllib.parse.urljoin(address, answer.headers["Location"])
        raise ValueError(f"more than {MOST_REDIRECTS} redirects, the last one to {address}")

    def _get(self, url: urllib.parse.SplitResult, headers: dict[str, str]) -> http.client.HTTPResponse:
        if url.scheme != "https":
            raise ValueError(f"not asked without TLS: {url.scheme}://{url.netloc}")
        path = f"{url.path}?{url.query}" if url.query else url.path
        kept = url.netloc in self._connections
        try:
            return self._send(url.netloc, path, headers)
        except (OSError, http.client.HTTPException):
            if not kept:
                raise
            # A connection that was at rest may have been closed by the other side, or forgotten on the way there.
            return self._send(url.netloc, path, headers)

    def _send(self, host: str, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        connection = self._connections.get(host) or self._connect(host)
        self._connections[host] = connection
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
        except BaseException:
            self._connections.pop(host, None)
            connection.close()
            raise
        if self._connections.get(host) is not connection:
            # Closed from elsewhere while it was being made, of which it knows nothing.
            answer.close()
            connection.close()
            raise OSError("the connection was closed")
        return answer

    def _connect(self, host: str) -> http.client.HTTPSConnection:
        if self._context is None:
            self._context = ssl.create_default_context()
            if self._authority is not None:
                self._context.load_verify_locations(self._authority)
        proxy = "" if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get("https", "")
        if not proxy:
            return http.client.HTTPSConnection(host, timeout=self._timeout, context=self._context)
        gate = urllib.parse.urlsplit(proxy).netloc.rpartition("@")[2]
        connection = http.client.HTTPSConnection(gate, timeout=self._timeout, context=self._context)
        connection.set_tunnel(host)
        return connection


def failed(reference: str, why: str) -> BackendError:
    """A pull that may succeed later."""
    return BackendError("ImagePullFailed", f"cannot pull {reference}: {why}", retryable=True)


def _refusal(reference: str, status: int, text: str) -> BackendError:
    if status == http.HTTPStatus.NOT_FOUND:
        return BackendError("ImageNotFound", f"the registry does not have {reference}", retryable=False)
    said = f"HTTP {status} {' '.join(text.split())[:300]}".strip()
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return BackendError("ImagePullDenied", f"cannot pull {reference}: {said}", retryable=True)
    return failed(reference, said)
