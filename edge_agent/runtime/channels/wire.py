"""One channel as a kind of session uses it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

import structlog

from edge_agent.runtime.backend import TerminalSize
from edge_agent.runtime.controller_link import Channel
from longshore.v1.agent_pb2 import ChannelData, ChannelRequest, ChannelResponse, ChannelTaken
from longshore.v1.types_pb2 import TerminalSize as TerminalSizePb

log = structlog.get_logger()

# Messages of input on their way that were not told to be taken: agent.proto, ChannelResponse.
WINDOW = 16
# Bytes in one message.
PIECE = 64 * 1024
# The controller speaks first, at once, where the invitation leaves open what is asked for.
OPENING_SECONDS = 30.0


class CannotServe(Exception):
    """A session that cannot be served; `reason` is one UpperCamelCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Wire:
    """Both directions. What the controller says is read by `listen`, which the owner runs beside the session, so that
    the controller's leaving is seen at once, whatever the session waits for."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sending = asyncio.Lock()
        self._opening: asyncio.Queue[ChannelResponse] = asyncio.Queue(1)
        self._opened = False
        self._input: asyncio.Queue[ChannelData] = asyncio.Queue(WINDOW)
        self._size: TerminalSize | None = None
        self._resized = asyncio.Event()

    async def listen(self) -> None:
        """Until the controller closes the session. Raises what breaks it."""
        async for message in self._channel:
            kind = message.WhichOneof("payload")
            if kind == "data":
                # Never waits while the controller keeps to the window.
                await self._input.put(message.data)
            elif kind == "resize":
                self._size = size_from_pb(message.resize)
                self._resized.set()
            elif not self._opened:
                self._opened = True
                self._opening.put_nowait(message)

    async def opening(self) -> ChannelResponse:
        """What the session is for. Raises CannotServe where the controller does not say it."""
        try:
            async with asyncio.timeout(OPENING_SECONDS):
                return await self._opening.get()
        except TimeoutError:
            raise CannotServe("Unsupported", "the controller does not say what this session is for") from None

    async def send(self, message: ChannelRequest) -> None:
        """Waits while the controller takes none. Raises what breaks the session."""
        async with self._sending:
            await self._channel.write(message)

    async def send_data(self, data: bytes, stream: str = "") -> None:
        for start in range(0, len(data), PIECE):
            await self.send(ChannelRequest(data=ChannelData(stream=stream, data=data[start : start + PIECE])))

    async def input(self) -> AsyncIterator[ChannelData]:
        """What the controller gives; a message counts as taken when the next one is asked for."""
        while True:
            yield await self._input.get()
            await self.send(ChannelRequest(taken=ChannelTaken(messages=1)))

    async def sizes(self) -> AsyncIterator[TerminalSize]:
        """New sizes of the terminal; of several that come at once the last."""
        while True:
            await self._resized.wait()
            self._resized.clear()
            if self._size is not None:
                yield self._size


def size_from_pb(size: TerminalSizePb) -> TerminalSize:
    """The usual one where a size is absent."""
    usual = TerminalSize()
    return TerminalSize(size.rows or usual.rows, size.columns or usual.columns)


async def together(*work: Coroutine[None, None, None]) -> None:
    """All of it to its end; the first failure ends the rest and is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _end(tasks)


@asynccontextmanager
async def beside(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs it while the block lasts. The block's own outcome counts: failures of the work are only logged."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for outcome in await _end(tasks):
            if isinstance(outcome, Exception):
                log.debug("channel_helper_failed", error=str(outcome))


async def _end(tasks: list[asyncio.Task[None]]) -> list[BaseException | None]:
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)
