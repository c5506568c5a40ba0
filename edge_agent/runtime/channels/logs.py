"""The log of an instance, while it is written; or of the one before it."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from edge_agent.runtime.backend import Handle, LogLine, LogQuery, Observed
from edge_agent.runtime.channels.finding import newest, previous
from edge_agent.runtime.channels.wire import CannotServe, Wire
from edge_agent.runtime.kept_logs import KeptLogs
from longshore.v1 import mqtt_pb2, types_pb2
from longshore.v1.agent_pb2 import ChannelEnd, ChannelRequest


class LogSource(Protocol):
    def logs(self, handle: Handle, query: LogQuery) -> AsyncIterator[LogLine]: ...


async def serve_log(
    wire: Wire, source: LogSource, kept: KeptLogs, instances: Sequence[Observed], asked: mqtt_pb2.LogQuery
) -> None:
    """All lines that are asked for, and the end."""
    query = _query(asked)
    if asked.previous:
        await _send_previous(wire, source, kept, instances, asked.deployment_id, query)
    else:
        await _send(wire, source.logs(newest(instances, asked.deployment_id).handle, query))
    await wire.send(ChannelRequest(end=ChannelEnd()))


async def _send_previous(
    wire: Wire, source: LogSource, kept: KeptLogs, instances: Sequence[Observed], deployment_id: str, query: LogQuery
) -> None:
    before = previous(instances)
    if before is not None:
        await _send(wire, source.logs(before.handle, replace(query, follow=False)))
        return
    lines = kept.read(deployment_id, query)
    if lines is None:
        raise CannotServe("NoPreviousInstance", f"this device keeps no log of an earlier instance of {deployment_id}")
    await _send(wire, _each(lines))


async def _each(lines: Iterable[LogLine]) -> AsyncIterator[LogLine]:
    for line in lines:
        yield line


async def _send(wire: Wire, lines: AsyncIterator[LogLine]) -> None:
    async with aclosing(_closable(lines)) as closable:
        async for line in closable:
            await wire.send(ChannelRequest(log_line=_line_pb(line)))


async def _closable(lines: AsyncIterator[LogLine]) -> AsyncGenerator[LogLine, None]:
    """The same lines; closes the source as soon as it is closed itself."""
    try:
        async for line in lines:
            yield line
    finally:
        if isinstance(lines, AsyncGenerator):
            await lines.aclose()


def _query(query: mqtt_pb2.LogQuery) -> LogQuery:
    since = query.since.seconds + query.since.nanos / 1e9
    return LogQuery(tail=max(0, query.tail), since=since, follow=query.follow)


def _line_pb(line: LogLine) -> types_pb2.LogLine:
    message = types_pb2.LogLine(stream=line.stream, text=line.text)
    message.time.FromNanoseconds(int(line.time * 1e9))
    return message
