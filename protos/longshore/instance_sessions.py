"""Sessions with one instance on its device: a command inside it, and connections to its ports."""

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, cast

import grpc

from longshore.failures import LongshoreError, from_rpc
from longshore.outbox import Outbox
from longshore.v1 import deployment_pb2, types_pb2

PIECE = 64 * 1024
# SO_LINGER: closing says that the connection broke.
_BREAK = struct.pack("ii", 1, 0)


class Output(NamedTuple):
    """A piece of what a command says: `stream` is "stdout" or "stderr"; with a terminal always "stdout"."""

    stream: str
    data: bytes


class ExecSession:
    """A command inside an instance; leaving the block kills it if it has not ended.

    Iterating gives its output until it ends, then `exit_code` is set; input may be given from another thread meanwhile.
    A reader who is slow holds up the command. Raises LongshoreError where the session breaks.
    """

    def __init__(self, method: object, start: deployment_pb2.ExecStart, *, stdin: bool) -> None:
        first = deployment_pb2.ExecRequest(start=start, stdin_end=not stdin)
        self._outbox = Outbox(first)
        self._call = _begin(method, self._outbox)
        # As a shell tells it: 128 + N where signal N ended it, 127 where there is no such command.
        self.exit_code: int | None = None

    def __iter__(self) -> Iterator[Output]:
        try:
            for answer in self._call:
                kind = answer.WhichOneof("payload")
                if kind == "exit":
                    self.exit_code = answer.exit.exit_code
                elif kind is not None:
                    yield Output(kind, getattr(answer, kind))
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        if self.exit_code is None:
            raise LongshoreError("UNAVAILABLE", "the controller ended the session", code="UNAVAILABLE")

    def wait(self) -> int:
        """The exit code; what the command says until then is dropped."""
        for _ in self:
            pass
        assert self.exit_code is not None
        return self.exit_code

    def write(self, data: bytes) -> None:
        """Gives input; waits while the command takes none. Does nothing once the session is over."""
        for start in range(0, len(data), PIECE):
            self._outbox.put(deployment_pb2.ExecRequest(stdin=data[start : start + PIECE]))

    def end_input(self) -> None:
        """Nothing more is written; with a terminal as Ctrl-D does."""
        self._outbox.put(deployment_pb2.ExecRequest(stdin_end=True))

    def resize(self, rows: int, columns: int) -> None:
        """The terminal has another size now."""
        size = types_pb2.TerminalSize(rows=rows, columns=columns)
        self._outbox.put_urgent(deployment_pb2.ExecRequest(resize=size))

    def close(self) -> None:
        """Idempotent."""
        self._outbox.close()
        self._call.cancel()

    def __enter__(self) -> "ExecSession":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


OnFailure = Callable[[LongshoreError], None]


class PortForwarder:
    """A local port whose connections go to a port of an instance, until the block ends: many at once, each for itself.

    `address` is where it listens. `on_failure` is told, from other threads, why a connection could not be made or
    broke. Raises OSError where the local port is taken.
    """

    def __init__(
        self,
        method: object,
        start: deployment_pb2.PortForwardStart,
        host: str,
        local_port: int,
        on_failure: OnFailure | None = None,
    ) -> None:
        self._method, self._start = method, start
        self._on_failure = on_failure or (lambda _: None)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, local_port), family=family)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._wake, self._woken = socket.socketpair()
        self._connections: set[_Connection] = set()
        self._lock = threading.Lock()
        self._accepting = threading.Thread(target=self._accept, name="longshore-port", daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._woken], [], [])
            if self._woken in ready:
                return
            with contextlib.suppress(OSError):
                local, _ = self._listener.accept()
                self._serve(local)

    def _serve(self, local: socket.socket) -> None:
        try:
            connection = _Connection(local, self._method, self._start)
        except ValueError:  # grpc raises it once the channel is closed
            local.close()
            return
        with self._lock:
            self._connections.add(connection)

        def serve() -> None:
            try:
                connection.run()
            except LongshoreError as failure:
                self._on_failure(failure)
            finally:
                with self._lock:
                    self._connections.discard(connection)

        threading.Thread(target=serve, name="longshore-connection", daemon=True).start()

    def close(self) -> None:
        """Nothing listens any more, and open connections are broken off. Idempotent."""
        self._wake.close()
        self._accepting.join()
        self._listener.close()
        self._woken.close()
        with self._lock:
            open_now = list(self._connections)
        for connection in open_now:
            connection.close()

    def __enter__(self) -> "PortForwarder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


class _Connection:
    """One connection to the local port, and the call that carries it."""

    def __init__(self, local: socket.socket, method: object, start: deployment_pb2.PortForwardStart) -> None:
        self._local = local
        self._outbox = Outbox(deployment_pb2.PortForwardRequest(start=start))
        self._call = _begin(method, self._outbox)
        self._closing = False

    def run(self) -> None:
        """Until both sides have ended. Raises LongshoreError where the way to the port breaks."""
        sending = threading.Thread(target=self._send, name="longshore-sending", daemon=True)
        sending.start()
        try:
            self._receive()
        except grpc.RpcError as error:
            self._break()
            if not self._closing:
                raise from_rpc(error) from None
        except OSError:
            # Whoever connected here has gone.
            self._call.cancel()
        finally:
            self._outbox.close()
            with contextlib.suppress(OSError):
                # Wakes who reads; whether the other side sees an end or a break is for closing to say.
                self._local.shutdown(socket.SHUT_RD)
            sending.join()
            self._local.close()

    def _receive(self) -> None:
        for answer in self._call:
            if answer.data:
                self._local.sendall(answer.data)
            if answer.end:
                self._local.shutdown(socket.SHUT_WR)

    def _send(self) -> None:
        try:
            while data := self._local.recv(PIECE):
                if not self._outbox.put(deployment_pb2.PortForwardRequest(data=data)):
                    return
            self._outbox.put(deployment_pb2.PortForwardRequest(end=True))
            self._outbox.finish()
        except OSError:
            self._closing = True
            self._call.cancel()

    def _break(self) -> None:
        """Whoever connected here is to see that the connection broke, not that all was said."""
        with contextlib.suppress(OSError):
            self._local.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BREAK)

    def close(self) -> None:
        self._closing = True
        self._call.cancel()


def _begin(method: object, outbox: Outbox[Any]) -> Any:
    """The call; whoever waits to give it something goes on when it ends."""
    call = cast(Callable[..., Any], method)(outbox)
    if not call.add_callback(outbox.close):
        outbox.close()
    return call
