"""Promises of `DeployBackend.open_exec`, as tests that run over each implementation."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from edge_agent.runtime.backend import BackendError, ExecSession, Handle, Phase, TerminalSize
from tests.contract.machine import (
    DEADLINE,
    MUCH,
    Command,
    Machine,
    Program,
    await_observed,
    find,
    has_ended,
    launch,
)
from tests.support.async_waiting import until_holds


class OpenExec:
    async def test_input_comes_back_and_its_end_ends_the_command(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        async with opened(machine, handle, Command.ECHO) as session:
            await session.write(b"hello ")
            assert await said(session, 6) == b"hello "
            await session.write(b"world")
            await session.write(b"")
            assert await said(session) == b"world"
            assert await session.wait() == 0

    async def test_both_streams_are_told_apart(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        async with opened(machine, handle, Command.BOTH) as session:
            pieces = [piece async for piece in pieces_of(session)]
            texts = {name: b"".join(data for stream, data in pieces if stream == name) for name in ("stdout", "stderr")}
            assert texts == {"stdout": b"out\n", "stderr": b"err\n"}

    async def test_exit_code_is_that_of_the_command(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        for command, code in ((Command.ENDS, 7), (Command.NONE, 127)):
            async with opened(machine, handle, command) as session:
                assert await session.wait() == code

    async def test_terminal_has_a_size_that_changes(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        async with opened(machine, handle, Command.SIZE, TerminalSize(33, 101)) as session:
            # An engine may give a terminal its size a moment after the command has begun, and tell it then too.
            first = (await said_at_last(session, b"33 101\r\n")).splitlines()
            assert (set(first) - {b"0 0"}, first[-1:]) == ({b"33 101"}, [b"33 101"])
            await session.resize(TerminalSize(50, 120))
            then = (await said_at_last(session, b"50 120\r\n")).splitlines()
            assert set(then) - {b"33 101"} == {b"50 120"}

    async def test_end_of_input_ends_a_command_in_a_terminal(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        async with opened(machine, handle, Command.ECHO, TerminalSize()) as session:
            await session.write(b"")
            assert await session.wait() == 0

    async def test_closing_kills_the_command_and_its_children(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        for terminal in (None, TerminalSize()):
            async with opened(machine, handle, Command.LASTS, terminal) as session:
                await until_lasting(machine, handle)
            assert await machine.lasting(handle) == 0
            await session.close()
        seen = await find(machine.backend, handle)
        assert seen is not None
        assert seen.phase is Phase.RUNNING

    async def test_slow_reader_misses_nothing_and_holds_up_nobody_else(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        async with opened(machine, handle, Command.MUCH) as slow:
            heard = await said(slow, 1)
            async with opened(machine, handle, Command.MUCH) as other:
                assert len(await said(other)) == MUCH
            while piece := await slow.read():
                heard += piece[1]
                await asyncio.sleep(0.002)
            assert heard == b"x" * MUCH
            assert await slow.wait() == 0

    async def test_command_ends_with_its_instance(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        async with opened(machine, handle, Command.LASTS) as session:
            await until_lasting(machine, handle)
            await machine.backend.stop(handle, 5)
            assert await session.wait() == 137

    async def test_input_for_a_command_that_has_ended_is_dropped(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        async with opened(machine, handle, Command.ENDS) as session:
            assert await session.wait() == 7
            for _ in range(20):
                await session.write(b"x" * 65536)
            await session.resize(TerminalSize())

    async def test_session_in_what_does_not_run_is_refused(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.FAILS))
        await await_observed(machine.backend, handle, has_ended)
        with pytest.raises(BackendError) as caught:
            await machine.backend.open_exec(handle, machine.command(Command.ECHO), None)
        assert (caught.value.reason, caught.value.retryable) == ("NotRunning", True)

    async def test_what_a_killed_agent_has_left_open_is_killed_by_the_next(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        await machine.backend.list()
        for terminal in (None, TerminalSize()):
            await machine.backend.open_exec(handle, machine.command(Command.LASTS), terminal)
        await until_lasting(machine, handle, 4)
        await machine.restart_agent()
        await machine.backend.list()
        # What was killed may be counted for a moment still.
        await until_lasting(machine, handle, 0)
        async with opened(machine, handle, Command.LASTS):
            await until_lasting(machine, handle)
            await machine.backend.list()
            assert await machine.lasting(handle) == 2


@contextlib.asynccontextmanager
async def opened(
    machine: Machine, handle: Handle, command: Command, terminal: TerminalSize | None = None
) -> AsyncIterator[ExecSession]:
    """A command inside, while the block lasts and no longer than it may."""
    session = await machine.backend.open_exec(handle, machine.command(command), terminal)
    try:
        async with asyncio.timeout(2 * DEADLINE):
            yield session
    finally:
        await session.close()


async def pieces_of(session: ExecSession) -> AsyncIterator[tuple[str, bytes]]:
    while piece := await session.read():
        yield piece


async def said(session: ExecSession, length: int | None = None) -> bytes:
    """What the command says from here on: so many bytes at least, or all of it."""
    heard = b""
    while (length is None or len(heard) < length) and (piece := await session.read()):
        heard += piece[1]
    return heard


async def said_at_last(session: ExecSession, last: bytes) -> bytes:
    """What the command says from here on up to `last`, or all of it where it never says that."""
    heard = b""
    while not heard.endswith(last) and (piece := await session.read()):
        heard += piece[1]
    return heard


async def until_lasting(machine: Machine, handle: Handle, count: int = 2) -> None:
    async def so() -> bool:
        return await machine.lasting(handle) == count

    await until_holds(so)
