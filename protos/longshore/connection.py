"""What all groups of calls share: one channel, time limits, pages, streams that go on where they broke."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message

from longshore import calls
from longshore.calls import Opener, Stream
from longshore.failures import LongshoreError

M = TypeVar("M", bound=Message)


class Connection:
    """A channel to one controller, and the ways in which calls are made over it; see `longshore.client.Client`."""

    def __init__(
        self,
        address: str,
        token: str,
        ca_certificate: str | None,
        *,
        timeout: float = 30.0,
        patience: float = 30.0,
        page_size: int = 0,
    ) -> None:
        self._timeout, self._patience, self._page_size = timeout, patience, page_size
        self._channel: grpc.Channel = calls.open_channel(address, token, ca_certificate)
        # The stubs are typed for the asyncio channel, and serve both.
        self._stub_channel = cast(Any, self._channel)

    def close(self) -> None:
        """Ends all calls. Idempotent."""
        self._channel.close()

    def _call(self, method: object, request: Message, answer: type[M], timeout: float | None = None) -> M:
        """`timeout`: seconds for this call, where it may take longer than others."""
        return calls.unary(method, request, answer, timeout=timeout or self._timeout, patience=self._patience)

    def _call_patiently(self, method: object, request: Message, answer: type[M], deadline: calls.Deadline) -> M:
        """However long the controller is away. Raises WaitTimeout at the deadline."""
        try:
            return calls.unary(method, request, answer, timeout=self._timeout, patience=deadline.left())
        except LongshoreError as failure:
            if failure.unreachable:
                deadline.check("the controller")
            raise

    def _pages(self, method: object, request: Any, answer: type[M]) -> Iterator[M]:
        request.page.size = self._page_size
        while True:
            page: Any = self._call(method, request, answer)
            yield page
            if not page.next_page_token:
                return
            request.page.token = page.next_page_token

    def _patiences(self, request: Any, follow: bool, reached: bool = False) -> Iterator[float | None]:
        """What is stored is read with the client's patience, so that a controller that cannot be reached is told at
        once; what follows, or whatever a controller is asked that was `reached` before, is waited for however long
        it is away."""
        yield None if reached else self._patience
        if follow:
            request.follow = True
            yield None


def opener(method: object, request: Message) -> Opener:
    """Opens the stream that `request`, as it is at that moment, asks for."""
    return lambda timeout: cast(Callable[..., Stream], method)(request, timeout=timeout)


def new_request_id() -> str:
    """Makes a repeated call harmless."""
    return secrets.token_hex(16)


def read_file(path: Path) -> bytes:
    """Raises LongshoreError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise LongshoreError("FILES_UNUSABLE", f"cannot read {path}: {error.strerror}") from error
