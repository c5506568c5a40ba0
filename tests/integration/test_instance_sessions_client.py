"""The client's side of sessions with an instance, against a gRPC server that does what a test wants."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from longshore.failures import LongshoreError
from longshore.instance_sessions import ExecSession, PortForwarder
from longshore.v1 import deployment_pb2, deployment_pb2_grpc
from tests.support.waiting import eventually

EXEC = deployment_pb2.ExecStart(deployment_id="dep-1", command=["cat"])
PORT = deployment_pb2.PortForwardStart(deployment_id="dep-1", port="http")


# The stubs know it for asyncio only, with every call.
Base: Any = deployment_pb2_grpc.DeploymentServiceServicer


class Server(Base):  # type: ignore[misc]
    """`Exec` gives back its input and exits with 5, or says nothing; `PortForward` gives back what comes."""

    def __init__(self) -> None:
        self.open = 0
        self.starts: list[Any] = []
        # Set: calls are refused with it, take nothing, or end without an exit.
        self.refusal = ""
        self.deaf = False
        self.abrupt = False
        self.over = threading.Event()

    def Exec(self, requests: Iterator[deployment_pb2.ExecRequest], context: Any) -> Iterator[Any]:
        self._begin(next(requests), context)
        if self.deaf:
            self.over.wait(60)
            return
        for request in requests:
            if request.stdin:
                yield deployment_pb2.ExecResponse(stdout=request.stdin)
            if request.HasField("resize"):
                yield deployment_pb2.ExecResponse(stderr=str(request.resize.rows).encode())
            if request.stdin_end:
                break
        if not self.abrupt:
            yield deployment_pb2.ExecResponse(exit=deployment_pb2.ExecExit(exit_code=5))

    def PortForward(self, requests: Iterator[deployment_pb2.PortForwardRequest], context: Any) -> Iterator[Any]:
        self._begin(next(requests), context)
        if self.deaf:
            self.over.wait(60)
            return
        for request in requests:
            yield deployment_pb2.PortForwardResponse(data=request.data, end=request.end)
            if self.abrupt:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")

    def _begin(self, first: Any, context: Any) -> None:
        self.starts.append(first)
        if self.refusal:
            context.abort(grpc.StatusCode.NOT_FOUND, self.refusal)
        self.open += 1
        context.add_callback(self._ended)

    def _ended(self) -> None:
        self.open -= 1


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def stub(server: Server) -> Iterator[Any]:
    made: Any = grpc.server(futures.ThreadPoolExecutor(40))
    deployment_pb2_grpc.add_DeploymentServiceServicer_to_server(server, made)
    port = made.add_insecure_port("127.0.0.1:0")
    made.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield deployment_pb2_grpc.DeploymentServiceStub(channel)  # type: ignore[arg-type]
    server.over.set()
    made.stop(0).wait()


def test_command_gets_input_and_sizes_and_gives_output_and_exit_code(server: Server, stub: Any) -> None:
    with ExecSession(stub.Exec, EXEC, stdin=True) as session:
        said = iter(session)
        session.write(b"x" * 150_000)
        assert sum(len(next(said).data) for _ in range(3)) == 150_000
        session.resize(33, 101)
        assert next(said) == ("stderr", b"33")
        session.end_input()
        assert list(said) == []
    assert session.exit_code == 5
    assert [start.start for start in server.starts] == [EXEC]


def test_command_without_input_is_told_so_in_the_first_message(server: Server, stub: Any) -> None:
    with ExecSession(stub.Exec, EXEC, stdin=False):
        eventually(lambda: len(server.starts) == 1)
    assert server.starts[0].stdin_end


def test_refusal_is_raised_when_the_session_is_read(server: Server, stub: Any) -> None:
    server.refusal = "no such deployment"
    with (
        ExecSession(stub.Exec, EXEC, stdin=True) as session,
        pytest.raises(LongshoreError, match="no such deployment") as caught,
    ):
        session.wait()
    assert caught.value.code == "NOT_FOUND"
    # Nobody takes it any more, and nobody waits for that.
    session.write(b"x" * 10_000_000)


def test_session_that_ends_without_an_exit_code_has_broken(server: Server, stub: Any) -> None:
    server.abrupt = True
    with ExecSession(stub.Exec, EXEC, stdin=True) as session:
        session.end_input()
        with pytest.raises(LongshoreError, match="ended the session"):
            session.wait()


def test_writer_waits_for_a_command_that_takes_nothing_until_the_session_is_closed(server: Server, stub: Any) -> None:
    server.deaf = True
    with ExecSession(stub.Exec, EXEC, stdin=True) as session:
        writing = threading.Thread(target=session.write, args=(b"x" * 50_000_000,))
        writing.start()
        writing.join(1)
        assert writing.is_alive()
    writing.join(10)
    assert not writing.is_alive()
    eventually(lambda: server.open == 0)


@contextlib.contextmanager
def connected(forwarder: PortForwarder) -> Iterator[socket.socket]:
    with socket.create_connection(forwarder.address, timeout=30) as made:
        yield made


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_many_connections_each_get_their_own_bytes_and_end(server: Server, stub: Any) -> None:
    answers: dict[int, bytes] = {}

    def talk(number: int) -> None:
        with connected(forwarder) as connection:
            sending = threading.Thread(target=send, args=(connection, number))
            sending.start()
            answers[number] = read_all(connection)
            sending.join()

    def send(connection: socket.socket, number: int) -> None:
        connection.sendall(str(number).encode() * 100_000)
        connection.shutdown(socket.SHUT_WR)

    with PortForwarder(stub.PortForward, PORT, "127.0.0.1", 0) as forwarder:
        threads = [threading.Thread(target=talk, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert answers == {number: str(number).encode() * 100_000 for number in range(12)}
    eventually(lambda: server.open == 0)


@pytest.mark.parametrize("how", ["refused", "broken"])
def test_failure_is_told_and_whoever_connected_sees_it(server: Server, stub: Any, how: str) -> None:
    server.refusal = "no such port" if how == "refused" else ""
    server.abrupt = how == "broken"
    failures: list[LongshoreError] = []
    with PortForwarder(stub.PortForward, PORT, "127.0.0.1", 0, failures.append) as forwarder:
        with connected(forwarder) as connection:
            connection.sendall(b"hello")
            with pytest.raises(ConnectionError):
                read_all(connection)
        eventually(lambda: len(failures) == 1)
    assert failures[0].message == ("no such port" if how == "refused" else "the connection broke")


def test_connection_that_its_program_leaves_ends_the_call(server: Server, stub: Any) -> None:
    server.deaf = True
    failures: list[LongshoreError] = []
    with PortForwarder(stub.PortForward, PORT, "127.0.0.1", 0, failures.append) as forwarder:
        with connected(forwarder) as connection:
            eventually(lambda: server.open == 1)
            # Closing resets.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        eventually(lambda: server.open == 0)
    assert failures == []


def test_closing_breaks_off_what_is_open_and_frees_the_port(server: Server, stub: Any) -> None:
    server.deaf = True
    failures: list[LongshoreError] = []
    forwarder = PortForwarder(stub.PortForward, PORT, "127.0.0.1", 0, failures.append)
    with connected(forwarder) as connection:
        eventually(lambda: server.open == 1)
        forwarder.close()
        forwarder.close()
        with pytest.raises(ConnectionError):
            connection.recv(1)
    eventually(lambda: server.open == 0)
    assert failures == []
    with socket.create_server(forwarder.address):
        pass


def test_port_that_is_taken_is_an_error(stub: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        PortForwarder(stub.PortForward, PORT, "127.0.0.1", taken.getsockname()[1])
