"""Calls that outlive a short loss of the controller: unary ones are repeated, streams go on where they broke."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import Message

from longshore.failures import LongshoreError, WaitTimeout, from_rpc

M = TypeVar("M", bound=Message)

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 3.0
# Servers cut off clients that ping more often than each five minutes while nothing is sent.
_KEEPALIVE_MS = 310_000
_DETAILS_LIMIT = 900_000
_OPTIONS = (
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    ("grpc.max_receive_message_length", 64 * 2**20),
    # Errors carry all problems of a file.
    ("grpc.max_metadata_size", _DETAILS_LIMIT + 2**16),
)


class _TakesAllDetails(grpc.AuthMetadataPlugin):
    """Tells the server with each call that this channel takes more details of an error than others do."""

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        callback((("longshore-details-limit", str(_DETAILS_LIMIT)),), None)


def open_channel(address: str, token: str, ca_certificate: str | None) -> grpc.Channel:
    """A TLS channel that sends the token with each call. `ca_certificate` in PEM; None: the system's."""
    roots = ca_certificate.encode() if ca_certificate else None
    credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(roots),
        grpc.access_token_call_credentials(token),
        grpc.metadata_call_credentials(_TakesAllDetails()),
    )
    return grpc.secure_channel(address, credentials, options=_OPTIONS)


@dataclass(frozen=True)
class Deadline:
    """A moment to give up at; `at` None means never."""

    at: float | None = None

    @classmethod
    def after(cls, seconds: float | None) -> "Deadline":
        return cls(None if seconds is None else time.monotonic() + seconds)

    def within(self, seconds: float) -> "Deadline":
        """In so many seconds, or at this one where it is earlier."""
        left = self.left()
        return Deadline.after(seconds if left is None else min(seconds, left))

    def left(self) -> float | None:
        """Seconds left, never negative; None for ever."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    def passed(self) -> bool:
        return self.left() == 0.0

    def check(self, waited_for: str) -> None:
        """Raises WaitTimeout once it has passed."""
        if self.passed():
            raise WaitTimeout(f"gave up waiting for {waited_for}")


NEVER = Deadline()


class Pauses:
    """Growing pauses between tries, with jitter; `reset` after a success."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE

    def sleep(self, until: Deadline) -> None:
        """Pauses, but not past the deadline."""
        left = until.left()
        pause = self._next * random.uniform(0.5, 1.5)
        time.sleep(pause if left is None else min(pause, left))
        self._next = min(self._next * 2, LONGEST_PAUSE)

    def reset(self) -> None:
        self._next = FIRST_PAUSE


def unary(method: object, request: Message, answer: type[M], *, timeout: float, patience: float | None) -> M:
    """The answer to a call that is harmless to repeat: while the controller cannot be reached, it is tried again
    for `patience` seconds, or for ever where that is None. Raises LongshoreError."""
    until, pauses = Deadline.after(patience), Pauses()
    while True:
        try:
            return cast(M, cast(Callable[..., object], method)(request, timeout=timeout))
        except grpc.RpcError as error:
            failure = from_rpc(error)
            if not failure.unreachable or until.passed():
                raise failure from None
        pauses.sleep(until)


class Stream(Protocol):
    """An open server stream, as grpc returns it."""

    def __iter__(self) -> Iterator[Any]: ...

    def cancel(self) -> object: ...


# Opens a stream behind what was seen so far; takes the call's timeout.
Opener = Callable[[float | None], Stream]


def resuming(
    open_stream: Opener,
    *,
    patience: float | None,
    deadline: Deadline = NEVER,
    silence: float | None = None,
) -> Iterator[Any]:
    """Messages of a stream that is opened again wherever it broke.

    `patience`: for how many seconds a broken stream is opened
    again without a message coming; None means for ever. `deadline`: WaitTimeout is raised then. `silence`: a stream
    that says nothing for so long is taken for broken. Raises LongshoreError for any other failure.
    """
    pauses, until = Pauses(), NEVER
    broken = False
    while True:
        try:
            for message in pieces(open_stream, deadline, silence):
                pauses.reset()
                broken = False
                yield message
            return
        except LongshoreError as failure:
            deadline.check("the controller")
            until = until if broken else Deadline.after(patience)
            broken = True
            if until.passed() or not failure.unreachable:
                raise
        pauses.sleep(until)


def pieces(open_stream: Opener, deadline: Deadline, silence: float | None) -> Iterator[Any]:
    """Messages of a stream that is opened once, until its end; the call is cancelled when the reader leaves.

    Raises LongshoreError where it breaks."""
    stream = open_stream(deadline.left())
    watchdog = Watchdog(stream.cancel, silence) if silence else None
    try:
        for message in stream:
            if watchdog:
                watchdog.touch()
            yield message
    except grpc.RpcError as error:
        if watchdog and watchdog.fired:
            raise LongshoreError("UNAVAILABLE", f"nothing heard for {silence} s", code="UNAVAILABLE") from error
        raise from_rpc(error) from None
    finally:
        if watchdog:
            watchdog.close()
        stream.cancel()


class Watchdog:
    """Calls `bite` once nobody has called `touch` for `silence` seconds; from a thread of its own."""

    def __init__(self, bite: Callable[[], object], silence: float) -> None:
        self.fired = False
        self._bite, self._silence = bite, silence
        self._touched = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="longshore-watchdog", daemon=True).start()

    def touch(self) -> None:
        self._touched = time.monotonic()

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        while (left := self._touched + self._silence - time.monotonic()) > 0:
            if self._closed.wait(left):
                return
        self.fired = True
        self._bite()
