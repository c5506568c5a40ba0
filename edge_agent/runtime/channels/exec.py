"""A command inside the running instance, with input and output; it never outlives its session."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from edge_agent.runtime.backend import ExecSession, Handle, Observed, TerminalSize
from edge_agent.runtime.channels.finding import running
from edge_agent.runtime.channels.wire import Wire, beside, size_from_pb
from longshore.v1.agent_pb2 import ChannelExit, ChannelRequest, ExecQuery


class ExecSource(Protocol):
    async def open_exec(self, handle: Handle, command: Sequence[str], terminal: TerminalSize | None) -> ExecSession: ...


async def serve_exec(wire: Wire, source: ExecSource, instances: Sequence[Observed], asked: ExecQuery) -> None:
    """All of the command's output, and its exit code. However this ends, nothing of the command is left."""
    handle = running(instances, asked.deployment_id).handle
    session = await source.open_exec(handle, list(asked.command), size_from_pb(asked.size) if asked.tty else None)
    try:
        async with beside(_give_input(wire, session), _follow_size(wire, session)):
            while (said := await session.read()) is not None:
                await wire.send_data(said[1], said[0])
            code = await session.wait()
        await wire.send(ChannelRequest(exit=ChannelExit(exit_code=code)))
    finally:
        await asyncio.shield(session.close())


async def _give_input(wire: Wire, session: ExecSession) -> None:
    async for piece in wire.input():
        if piece.data:
            await session.write(piece.data)
        if piece.end:
            await session.write(b"")


async def _follow_size(wire: Wire, session: ExecSession) -> None:
    async for size in wire.sizes():
        await session.resize(size)
