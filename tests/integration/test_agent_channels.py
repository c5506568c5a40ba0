"""What an agent does in the sessions that it is invited to, against a real gRPC server: logs, commands, ports."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_agent.runtime.backend import LogLine
from edge_agent.runtime.channels import MAX_SESSIONS
from edge_agent.runtime.channels.wire import PIECE, WINDOW
from edge_agent.runtime.controller_link import ControllerLink
from longshore.v1 import agent_pb2, mqtt_pb2, types_pb2
from tests.support.agent_controller import Session
from tests.support.agent_links import surroundings
from tests.support.async_waiting import until
from tests.support.local_channels import DEPLOYMENT, LocalChannels, local_channels

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalChannels]:
    async with surroundings(tmp_path) as around:
        link = ControllerLink(around.identity)
        async with local_channels(link, around.controller, tmp_path) as made:
            yield made
        await link.close()


async def ended(session: Session) -> agent_pb2.ChannelRequest:
    """The last that the agent says."""
    await until(session.ended.is_set)
    return session.last


# The log.


async def test_following_goes_on_until_the_controller_closes(local: LocalChannels) -> None:
    session = local.follow("s1")
    local.engine.write(local.instance.handle, "first")
    await until(lambda: len(session.received) == 1)
    local.engine.write(local.instance.handle, "second")
    await until(lambda: [message.log_line.text for message in session.received] == ["first", "second"])
    session.close.set()
    await until(lambda: local.channels.count == 0)
    await until(lambda: local.backend.open_logs == 0)


async def test_an_invitation_that_comes_twice_opens_one_session(local: LocalChannels) -> None:
    local.engine.write(local.instance.handle, "only")
    session = local.follow("s1")
    assert local.follow("s1") is session
    await until(lambda: len(session.received) == 1)
    assert local.channels.count == 1


async def test_one_session_more_than_allowed_is_told_so_and_the_others_go_on(local: LocalChannels) -> None:
    *sessions, last = [local.follow(f"s{number}") for number in range(MAX_SESSIONS + 1)]
    assert (await ended(last)).error.reason == "TooManySessions"
    local.engine.write(local.instance.handle, "for all")
    await until(lambda: all(len(session.received) == 1 for session in sessions))
    assert local.channels.count == MAX_SESSIONS


async def test_a_controller_that_breaks_off_ends_the_session_and_its_source(local: LocalChannels) -> None:
    local.engine.write(local.instance.handle, "only")
    session = local.follow("s1")
    await until(lambda: len(session.received) == 1)
    await local.controller.stop()
    await until(lambda: local.channels.count == 0)
    await until(lambda: local.backend.open_logs == 0)


async def test_the_log_of_the_previous_instance_is_what_was_kept(local: LocalChannels) -> None:
    async def kept() -> AsyncIterator[LogLine]:
        for number in range(1, 4):
            yield LogLine(1_700_000_000.0 + number, "stdout", f"earlier {number}")

    await local.kept_logs.keep(DEPLOYMENT, kept())
    query = mqtt_pb2.LogQuery(deployment_id=DEPLOYMENT, previous=True, tail=2)
    session = local.ask("s1", mqtt_pb2.ChannelInvitation(logs=query))
    await ended(session)
    assert [line.text for line in session.lines] == ["earlier 2", "earlier 3"]
    assert session.whole


async def test_where_no_previous_instance_is_known_that_is_told(local: LocalChannels) -> None:
    query = mqtt_pb2.LogQuery(deployment_id=DEPLOYMENT, previous=True)
    session = local.ask("s1", mqtt_pb2.ChannelInvitation(logs=query))
    assert (await ended(session)).error.reason == "NoPreviousInstance"


async def test_what_this_agent_does_not_know_is_answered(local: LocalChannels) -> None:
    session = local.ask("s1", mqtt_pb2.ChannelInvitation())
    # As of a version to come.
    session.said.put_nowait(agent_pb2.ChannelResponse())
    assert (await ended(session)).error.reason == "Unsupported"


# Commands.


async def test_command_gets_its_input_and_gives_output_and_exit_code(local: LocalChannels) -> None:
    session = local.exec("cat")
    session.give(b"hello ")
    await until(lambda: session.output == b"hello ")
    session.give(b"world", end=True)
    assert (await ended(session)).exit.exit_code == 0
    assert session.output == b"hello world"
    assert session.taken >= 1


async def test_exit_code_and_streams_are_those_of_the_command(local: LocalChannels) -> None:
    session = local.exec("exit", "7")
    assert (await ended(session)).exit.exit_code == 7
    both = local.exec("both")
    await ended(both)
    said = [(message.data.stream, message.data.data) for message in both.received if message.HasField("data")]
    assert said == [("stdout", b"out\n"), ("stderr", b"err\n")]


async def test_terminal_is_resized_and_of_several_sizes_the_last_counts(local: LocalChannels) -> None:
    session = local.exec("size", size=(33, 101))
    await until(lambda: session.output == b"33 101\r\n")
    for rows in (40, 50, 60):
        size = types_pb2.TerminalSize(rows=rows, columns=120)
        session.said.put_nowait(agent_pb2.ChannelResponse(resize=size))
    await until(lambda: session.output.endswith(b"60 120\r\n"))
    session.close.set()


async def test_command_is_killed_when_the_controller_closes(local: LocalChannels) -> None:
    session = local.exec("lasts")
    await until(lambda: len(local.instance.commands) == 1)
    session.close.set()
    await until(lambda: local.instance.commands == [])
    await until(lambda: local.channels.count == 0)


async def test_closing_is_seen_although_the_command_takes_no_input(local: LocalChannels) -> None:
    """What was sent and not taken must not stand before the news that nobody listens any more."""
    session = local.exec("lasts")
    for _ in range(WINDOW):
        session.give(b"x" * PIECE)
    await until(lambda: session.taken == 4)
    session.close.set()
    await until(lambda: local.instance.commands == [])


async def test_command_is_killed_when_the_connection_breaks(local: LocalChannels) -> None:
    local.exec("lasts")
    await until(lambda: len(local.instance.commands) == 1)
    await local.controller.stop()
    await until(lambda: local.instance.commands == [])


async def test_invitation_that_the_controller_does_not_know_of_runs_nothing(local: LocalChannels) -> None:
    """Whoever can publish to the broker could else run commands on devices."""
    local.channels.invited(mqtt_pb2.ChannelInvitation(session_id="forged"))
    await until(lambda: local.channels.count == 0)
    assert ("open_exec", local.instance.handle.value) not in local.engine.calls


async def test_much_output_comes_whole_in_small_messages(local: LocalChannels) -> None:
    session = local.exec("much", "5000000")
    assert (await ended(session)).exit.exit_code == 0
    assert session.output == b"x" * 5_000_000
    assert max(len(message.data.data) for message in session.received) <= PIECE


async def test_command_in_what_does_not_run_is_refused(local: LocalChannels) -> None:
    assert (await ended(local.exec("cat", deployment_id="deployment-9"))).error.reason == "NoSuchInstance"
    local.engine.crash(local.instance.handle)
    assert (await ended(local.exec("cat"))).error.reason == "NotRunning"


async def test_command_ends_with_its_instance(local: LocalChannels) -> None:
    session = local.exec("lasts")
    await until(lambda: len(local.instance.commands) == 1)
    local.engine.crash(local.instance.handle)
    assert (await ended(session)).exit.exit_code == 137


# Ports.


@asynccontextmanager
async def listening(local: LocalChannels, serve: Handler) -> AsyncIterator[None]:
    """Something that serves connections at the instance's port "http"."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    local.instance.addresses = (("http", server.sockets[0].getsockname()),)
    try:
        yield
    finally:
        server.close()


class Serve:
    """Counts its connections; gives back what comes, and ends when it has ended."""

    def __init__(self) -> None:
        self.open = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while data := await reader.read(PIECE):
                writer.write(data)
                await writer.drain()
            writer.write(b" and no more")
        finally:
            self.open -= 1
            writer.close()


async def test_bytes_go_both_ways_and_each_side_ends_its_own(local: LocalChannels) -> None:
    async with listening(local, Serve()):
        session = local.port("http")
        session.give(b"hello")
        await until(lambda: session.output == b"hello")
        session.give(end=True)
        assert (await ended(session)).HasField("end")
        assert session.output == b"hello and no more"
        assert [message.data.end for message in session.received if message.HasField("data")][-1]


async def test_connection_is_closed_when_the_controller_closes(local: LocalChannels) -> None:
    serve = Serve()
    async with listening(local, serve):
        session = local.port()
        session.give(b"hello")
        await until(lambda: session.output == b"hello")
        session.close.set()
        await until(lambda: serve.open == 0)
        await until(lambda: local.channels.count == 0)


async def test_port_that_does_not_exist_or_does_not_answer_is_told(local: LocalChannels) -> None:
    last = await ended(local.port("metrics"))
    assert last.error.reason == "NoSuchPort"
    assert "http" in last.error.message
    last = await ended(local.port("http"))
    assert last.error.reason == "ConnectionFailed"


async def test_program_that_breaks_off_is_told_so(local: LocalChannels) -> None:
    async def break_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Closing then resets the connection.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    async with listening(local, break_off):
        session = local.port("http")
        session.give(b"x" * PIECE)
        assert (await ended(session)).error.reason == "ConnectionFailed"


async def test_slow_port_holds_up_its_own_session_only(local: LocalChannels) -> None:
    stuck, over = asyncio.Event(), asyncio.Event()

    async def never_read(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stuck.set()
        await over.wait()
        writer.close()

    async with listening(local, never_read):
        slow = local.port("http")
        for _ in range(WINDOW):
            slow.give(b"x" * PIECE)
        await stuck.wait()
        other = local.exec("cat")
        other.give(b"quick", end=True)
        assert (await ended(other)).exit.exit_code == 0
        slow.close.set()
        await until(lambda: local.channels.count == 0)
        over.set()
        await asyncio.sleep(0)


def is_held(address: object) -> bool:
    """Whether this process has a socket of this address."""
    for file in Path("/proc/self/fd").iterdir():
        # One of them was the look at the folder itself.
        with contextlib.suppress(OSError):
            if str(file.readlink()).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(file.name))) as found:
                    if found.getsockname() == address:
                        return True
    return False


async def fill(session: Session) -> None:
    """Gives until no more is taken: all buffers on the way are full."""
    given = 0
    with contextlib.suppress(AssertionError):
        while True:
            session.give(b"x" * PIECE)
            given += 1
            await until(lambda: session.taken == given, seconds=1.0)  # noqa: B023 - it is over before the next


async def test_connection_that_is_cut_short_does_not_stay_for_who_takes_nothing(local: LocalChannels) -> None:
    callers: asyncio.Queue[object] = asyncio.Queue()
    over = asyncio.Event()

    async def never_read(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.put_nowait(writer.get_extra_info("peername"))
        await over.wait()
        writer.close()

    async with listening(local, never_read):
        session = local.port("http")
        caller = await callers.get()
        await fill(session)
        assert is_held(caller)
        session.close.set()
        await until(lambda: not is_held(caller))
        over.set()
