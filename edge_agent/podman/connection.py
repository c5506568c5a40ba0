"""Requests to Podman's API, each made in a thread and checked by its status.

podman-py gives the connection; its managers are not used, since they drop options and hide failures.
"""

import asyncio
import contextlib
import importlib.util
import json
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from edge_agent.podman.errors import ApiError
from edge_agent.podman.hijack import Hijacked, hijack
from edge_agent.podman.service import PodmanService
from edge_agent.runtime.backend import BackendUnavailable

# Accepted by Podman 4 and 5.
API_VERSION = "4.0.0"
TIMEOUT = 60.0
# For what is answered soon, and apart from that for what may last: nothing that lasts holds up a list.
THREADS = 16
LASTING_THREADS = 32

P = ParamSpec("P")
T = TypeVar("T")


class Connection:
    """Podman's API at `url`, or at the service that is started on demand."""

    def __init__(self, service: PodmanService, url: str | None = None) -> None:
        self._service = None if url else service
        self._url = url or service.url
        self._client: _Client | None = None
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="podman")
        self._lasting = ThreadPoolExecutor(LASTING_THREADS, thread_name_prefix="podman-lasting")

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs what blocks for a short time away from the loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))

    async def in_lasting_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs what may block for as long as a registry or a command likes. One that is cancelled ends by itself, some
        time; one that has not begun never does."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._lasting, lambda: function(*args, **kwargs))

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        timeout: float = TIMEOUT,
    ) -> Any:
        """The decoded answer, None where it is empty. Raises ApiError for any status from 400, BackendUnavailable where
        nothing answers."""
        return await self.in_thread(self._call, method, path, params, body, timeout)

    def _call(self, method: str, path: str, params: Mapping[str, str] | None, body: object, timeout: float) -> Any:
        response = self._send(method, path, params, _encoded(body), _headers(body), timeout, stream=False)
        content = response.content
        return json.loads(content) if content.strip() else None

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Iterator[Iterator[bytes]]:
        """The answer piece by piece, as it comes. Blocks: for threads. `timeout` is for one piece. Errors as `call`."""
        all_headers = {**_headers(body), **(headers or {})}
        response = self._send(method, path, params, _encoded(body), all_headers, timeout, stream=True)
        try:
            yield response.iter_content(chunk_size=None)
        except OSError as error:
            raise BackendUnavailable("PodmanUnavailable", f"podman broke off its answer: {error}") from error
        finally:
            response.close()

    async def hijack(self, path: str, body: object) -> Hijacked:
        """A POST whose connection carries bytes both ways afterwards. Errors as `call`."""
        for last_try in (False, True):
            if self._service is not None:
                await self.in_thread(self._service.ensure)
            try:
                return await hijack(self._url, f"/v{API_VERSION}/libpod/{path}", body)
            except (OSError, TimeoutError) as error:
                # The service was just going; it has not seen the request.
                if last_try:
                    raise BackendUnavailable("PodmanUnavailable", f"podman does not answer: {error}") from error
        raise AssertionError("not reached")

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        data: bytes | None,
        headers: Mapping[str, str],
        timeout: float | None,
        stream: bool,
    ) -> Any:
        for last_try in (False, True):
            client = self._ready_client(check=last_try)
            try:
                send = getattr(client.session, method.lower())
                arguments = {"data": data} if method in ("POST", "PUT") else {}
                response = send(path, params=params, headers=headers, timeout=timeout, stream=stream, **arguments)
            except client.failure as error:
                # There is no service, or it was just going; it has not seen the request.
                if last_try or "timed out" in str(error.__cause__):
                    message = f"podman does not answer: {error.__cause__ or error}"
                    raise BackendUnavailable("PodmanUnavailable", message) from error
                continue
            _check(method, path, response)
            return response
        raise AssertionError("not reached")

    def _ready_client(self, check: bool) -> "_Client":
        """With `check` the service was seen to answer. Without, the request itself is the cheaper check."""
        if self._service is not None and (check or not self._service.socket.exists()):
            self._service.ensure()
        with self._lock:
            if self._client is None:
                self._client = _new_client(self._url)
            return self._client

    def close(self) -> None:
        """Blocks until running requests have ended."""
        if self._client is not None:
            self._client.session.close()
        if self._service is not None:
            self._service.close()
        for threads in (self._threads, self._lasting):
            threads.shutdown(wait=False, cancel_futures=True)


def _encoded(body: object) -> bytes | None:
    return None if body is None else json.dumps(body).encode()


def _headers(body: object) -> dict[str, str]:
    return {} if body is None else {"Content-Type": "application/json"}


def _check(method: str, path: str, response: Any) -> None:
    if response.status_code < 400:
        return
    text = response.text
    response.close()
    try:
        answer = json.loads(text)
        message = str(answer.get("message") or answer.get("cause") or text)
    except ValueError:
        message = text
    raise ApiError(response.status_code, f"{method} {path}", message)


@dataclass(frozen=True)
class _Client:
    """podman-py's session, and what it raises where nothing answers."""

    session: Any
    failure: type[Exception]


def _new_client(url: str) -> _Client:
    """podman-py's client. Imported late and without its managers and without character set detection, which would
    double what it costs: 8 MB of memory in an agent that has to stay small."""
    if "podman" not in sys.modules and (found := importlib.util.find_spec("podman")) is not None:
        package = types.ModuleType("podman")
        package.__path__ = list(found.submodule_search_locations or ())
        package.__spec__ = found
        sys.modules["podman"] = package
    with warnings.catch_warnings(), _absent("charset_normalizer"):
        warnings.simplefilter("ignore")
        from podman.api.client import APIClient
        from podman.errors import APIError
    session = APIClient(url, version=API_VERSION, max_pool_size=THREADS + LASTING_THREADS)
    # A connection that is kept would keep the service from going idle; a new one costs a tenth of a millisecond.
    session.headers["Connection"] = "close"
    return _Client(session, APIError)


@contextlib.contextmanager
def _absent(name: str) -> Iterator[None]:
    """Within the block an optional module that is not imported yet cannot be."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
