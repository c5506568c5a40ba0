"""Readiness checks against real servers."""

import asyncio
import http.server
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from edge_agent.runtime.backend import BackendError, BackendUnavailable, ExecResult, Observed
from edge_agent.runtime.checks import LONGEST_SAID, Answer, ask
from edge_agent.runtime.model import Check, CommandProbe, HttpProbe, TcpProbe
from edge_agent.runtime.prober import LOST_PAUSE, next_pause, probe
from edge_agent.runtime.record import Health, Moment, Record, checked
from tests.support.workloads import make_observed, make_workload

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def answering(text: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()
        writer.close()

    return handle


def at_port(port: int) -> Observed:
    return make_observed(addresses=(("http", ("127.0.0.1", port)),))


async def never(command: tuple[str, ...], timeout: float) -> ExecResult:
    raise AssertionError("this check runs no command")


async def get(port: int, path: str = "/healthz", timeout: float = 2.0) -> Answer:
    return await ask(Check(HttpProbe("http", path), timeout=timeout), at_port(port), never)


@pytest.mark.parametrize(
    ("status", "ok"), [(200, True), (204, True), (302, True), (399, True), (400, False), (503, False), (199, False)]
)
async def test_an_http_check_is_answered_by_a_status_from_200_to_399(status: int, ok: bool) -> None:
    text = f"HTTP/1.1 {status} Something\r\nContent-Length: 2\r\n\r\nok".encode()
    async with serving(answering(text)) as port:
        assert await get(port) == Answer(ok, f"HTTP {status} from /healthz")


async def test_an_http_check_sends_a_request_that_servers_understand() -> None:
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        writer.close()

    async with serving(handle) as port:
        assert (await get(port, "/a b?c=d\r\nX: y")).ok
    lines = seen[0].decode().split("\r\n")
    assert lines[0] == "GET /a%20b?c=d%0D%0AX:%20y HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}" in lines
    assert "Connection: close" in lines


@pytest.fixture
def standard_server() -> Iterator[tuple[int, list[str]]]:
    """A threaded server of the standard library, and what it complains about."""
    complaints: list[str] = []

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * 20_000)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            complaints.append(str(client_address))

    server = Server(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1], complaints
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_server_sees_no_broken_connections_from_being_checked(
    standard_server: tuple[int, list[str]],
) -> None:
    port, complaints = standard_server
    answers = [await get(port) for _ in range(10)]
    assert all(answer.ok for answer in answers)
    assert complaints == []


async def test_a_port_where_nothing_listens_refuses() -> None:
    async with serving(answering(b"")) as port:
        pass
    assert await get(port) == Answer(False, "connection refused")
    assert await ask(Check(TcpProbe("http")), at_port(port), never) == Answer(False, "connection refused")


async def tcp(port: int, *, listens: bool | None = None, timeout: float = 2.0) -> Answer:
    async def told(name: str) -> bool | None:
        assert name == "http"
        return listens

    return await ask(Check(TcpProbe("http"), timeout=timeout), at_port(port), never, told)


async def test_a_forwarder_with_nothing_behind_it_does_not_count_as_an_answer() -> None:
    async def forwarder(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with serving(forwarder) as port:
        assert await tcp(port) == Answer(False, f"port {port} closes each connection at once")
        # A server may do the same, where it is known to be one.
        assert await tcp(port, listens=True) == Answer(True, f"port {port} accepts connections")


@pytest.mark.parametrize("greeting", [b"", b"220 hello\r\n"])
async def test_a_connection_that_stays_open_counts_as_an_answer(greeting: bytes) -> None:
    ended = asyncio.Semaphore(0)

    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        ended.release()

    async with serving(patient) as port:
        for timeout in (2.0, 0.1):
            assert await tcp(port, timeout=timeout) == Answer(True, f"port {port} accepts connections")
            await ended.acquire()


async def test_a_port_that_accepts_with_nothing_listening_inside_does_not_answer() -> None:
    async with serving(answering(b"")) as port:
        assert await tcp(port, listens=False) == Answer(False, "nothing listens on port http")


async def test_a_server_that_says_nothing_times_out() -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    async with serving(silent) as port:
        assert await get(port, timeout=0.1) == Answer(False, "timed out after 0.1 s")
        gone.set()


async def test_a_server_that_hangs_up_is_said_to() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with serving(rude) as port:
        assert await get(port) == Answer(False, "connection closed without an answer")


@pytest.mark.parametrize("text", [b"SSH-2.0-OpenSSH\r\n", b"\r\n", b"HTTP/1.1 abc\r\n\r\n", b"x" * 200_000 + b"\n"])
async def test_what_does_not_speak_http_is_not_ready(text: bytes) -> None:
    async with serving(answering(text)) as port:
        answer = await get(port)
        assert not answer.ok
        assert "does not speak HTTP" in answer.said


async def test_a_port_that_is_not_published_is_not_ready() -> None:
    answer = await ask(Check(TcpProbe("http")), make_observed(), never)
    assert answer == Answer(False, "port http is not published")


async def test_a_command_is_judged_by_its_exit_code() -> None:
    async def execute(command: tuple[str, ...], timeout: float) -> ExecResult:
        return ExecResult(int(command[1]), b"first\nmodel not loaded\n")

    good = await ask(Check(CommandProbe(("check", "0"))), make_observed(), execute)
    bad = await ask(Check(CommandProbe(("check", "2"))), make_observed(), execute)
    assert (good, bad) == (Answer(True, "check ended with 0"), Answer(False, "check ended with 2: model not loaded"))


async def test_a_command_that_cannot_run_is_not_ready_but_an_absent_engine_says_nothing() -> None:
    async def fails(command: tuple[str, ...], timeout: float) -> ExecResult:
        raise BackendError("ExecTimeout", "check ran longer than 2 s", retryable=True)

    async def absent(command: tuple[str, ...], timeout: float) -> ExecResult:
        raise BackendUnavailable("PodmanUnavailable", "no socket")

    check = Check(CommandProbe(("check",)))
    assert await ask(check, make_observed(), fails) == Answer(False, "check ran longer than 2 s")
    with pytest.raises(BackendUnavailable):
        await ask(check, make_observed(), absent)


def test_a_ready_instance_is_asked_each_period_and_others_far_more_often() -> None:
    check = Check(TcpProbe("http"), period=10.0)
    handle = make_observed().handle
    assert next_pause(check, Health(handle, 0.0, ready=True, ever_ready=True), 0.02) == 10.0
    assert next_pause(check, Health(handle, 0.0), 0.02) == 0.02
    assert next_pause(check, Health(handle, 0.0, ever_ready=True), 0.02) == LOST_PAUSE


async def test_whatever_a_command_prints_its_status_stays_short() -> None:
    async def execute(command: tuple[str, ...], timeout: float) -> ExecResult:
        return ExecResult(1, b"x" * 2**20)

    answer = await ask(Check(CommandProbe(("check",))), make_observed(), execute)
    assert len(answer.said) <= LONGEST_SAID


async def test_what_cannot_be_asked_is_not_said_to_be_ready() -> None:
    class Gone:
        async def exec(self, *_: object) -> ExecResult:
            raise BackendUnavailable("PodmanUnavailable", "no socket")

    observed = make_observed()
    workload = make_workload(readiness=Check(CommandProbe(("check",)), period=0.01))
    record = Record("d1").with_health(Health(observed.handle, 0.0, answered=True, ever_ready=True, ready=True))
    said: list[Health] = []

    def report(answer: Answer) -> Health | None:
        nonlocal record
        record = checked(record, workload, observed.handle, answer.ok, answer.said, Moment(0.0, 0.0))
        assert record.healths
        said.append(record.healths[0])
        return record.healths[0] if record.healths[0].ready else None

    backend: Any = Gone()
    await asyncio.wait_for(probe(backend, workload, observed, report), 10)
    assert [health.ready for health in said] == [True, True, False]
    assert said[-1].said == "its check cannot be run: no socket"
