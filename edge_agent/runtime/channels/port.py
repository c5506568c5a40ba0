"""One TCP connection to a port of the running instance."""

import asyncio
from collections.abc import Sequence

from edge_agent.runtime.backend import Observed
from edge_agent.runtime.channels.finding import running
from edge_agent.runtime.channels.wire import PIECE, CannotServe, Wire, together
from longshore.v1.agent_pb2 import ChannelData, ChannelEnd, ChannelRequest, PortQuery

CONNECT_SECONDS = 10.0


async def serve_port(wire: Wire, instances: Sequence[Observed], asked: PortQuery) -> None:
    """Bytes both ways, until both sides have ended theirs."""
    name, address = _address(running(instances, asked.deployment_id), asked.port)
    reader, writer = await _connect(name, address)
    try:
        await together(_to_port(wire, writer), _from_port(wire, reader))
        writer.close()
    except OSError as error:
        raise CannotServe("ConnectionFailed", f"the connection to port {name} broke: {error}") from error
    finally:
        # One that is cut short does not wait until what it has is taken, which may be never.
        if not writer.is_closing():
            writer.transport.abort()
    await wire.send(ChannelRequest(end=ChannelEnd()))


def _address(instance: Observed, port: str) -> tuple[str, tuple[str, int]]:
    """The port's name and where this device reaches it. Raises CannotServe where there is no such port."""
    known = dict(instance.addresses)
    name = port or (next(iter(known)) if len(known) == 1 else "")
    if name in known:
        return name, known[name]
    ports = f"its ports are: {', '.join(known)}" if known else "it has none"
    said = f"the instance has no port {port}" if port else "name a port of the instance"
    raise CannotServe("NoSuchPort", f"{said}; {ports}")


async def _connect(name: str, address: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, number = address
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await asyncio.open_connection(host, number, limit=PIECE)
    except (OSError, TimeoutError) as error:
        message = f"nothing answers at port {name} ({host}:{number}): {error or 'no answer'}"
        raise CannotServe("ConnectionFailed", message) from error


async def _to_port(wire: Wire, writer: asyncio.StreamWriter) -> None:
    async for piece in wire.input():
        if piece.data:
            writer.write(piece.data)
            await writer.drain()
        if piece.end:
            writer.write_eof()
            return


async def _from_port(wire: Wire, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(PIECE):
        await wire.send_data(data)
    await wire.send(ChannelRequest(data=ChannelData(end=True)))
