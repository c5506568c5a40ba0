"""The agent's way to the MQTT broker, connection after connection; what `broker_connection` is for one of them."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol

import structlog
from google.protobuf.message import Message

from edge_agent.runtime.backoff import Backoff
from edge_agent.runtime.broker_connection import BrokerConnection, BrokerLost
from edge_agent.runtime.identity import Identity
from edge_agent.runtime.settings import DEFAULT_KEEPALIVE
from longshore.topics import Topic
from longshore.v1 import mqtt_pb2

log = structlog.get_logger()

RECONNECT_FIRST = 1.0
RECONNECT_CAP = 60.0
# The answer to a bell waits so long: what is fetched because of it goes before, and several bells have one answer.
ANSWER_PAUSE = 1.0
# A connection that ends sooner does not count as success: two machines with one identity would fight at full speed.
STABLE_AFTER = 20.0


class BrokerListener(Protocol):
    """Who is told what comes from the broker. Called in the event loop; must not block."""

    def broker_connected(self) -> None: ...

    def broker_lost(self) -> None: ...

    def desired_noticed(self, notice: mqtt_pb2.DesiredNotice) -> None: ...

    def journal_acknowledged(self, ack: mqtt_pb2.JournalAck) -> None: ...

    def channel_invited(self, invitation: mqtt_pb2.ChannelInvitation) -> None: ...


class BrokerLink:
    """Connects, and connects again for as long as `run` runs.

    `next_session` gives a greater number at each call, across restarts of the agent.
    """

    def __init__(
        self,
        identity: Identity,
        next_session: Callable[[], int],
        listener: BrokerListener,
        keepalive: float = DEFAULT_KEEPALIVE,
    ) -> None:
        self._identity = identity
        self._keepalive = keepalive
        self._next_session = next_session
        self._listener = listener
        self._connection: BrokerConnection | None = None
        self._hint = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def publish(self, topic: Topic, message: Message) -> bool:
        """Hands a message to the connection; False where there is none. It can still be lost with the connection."""
        if self._connection is None:
            return False
        self._connection.publish(topic, message)
        return True

    async def run(self) -> None:
        """For ever. Cancelled, it tells the broker first that the device goes on purpose."""
        backoff = Backoff(RECONNECT_FIRST, RECONNECT_CAP)
        while True:
            began = time.monotonic()
            try:
                await self._connect_once()
            except BrokerLost as error:
                if time.monotonic() - began > STABLE_AFTER:
                    backoff.reset()
                delay = backoff.next()
                broker = self._identity.broker_address
                log.warning("broker_lost", broker=broker, error=str(error), retry_in=round(delay, 1))
                await self._pause(delay)

    def retry_soon(self) -> None:
        """There is a network again, it seems: does not wait for the end of a long pause."""
        self._hint.set()

    async def _pause(self, seconds: float) -> None:
        self._hint.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hint.wait()

    async def _connect_once(self) -> None:
        """One connection from beginning to end; always raises."""
        connection = BrokerConnection(self._identity, self._next_session(), self._keepalive)
        loop = asyncio.get_running_loop()
        answer: asyncio.TimerHandle | None = None
        try:
            await connection.open()
            log.info("broker_connected", broker=self._identity.broker_address, session=connection.session)
            self._connection = connection
            self._listener.broker_connected()
            while True:
                topic, message = await connection.receive()
                self._deliver(topic, message)
                if topic is Topic.DESIRED and (answer is None or answer.when() <= loop.time()):
                    # The bell also asks whether somebody is there: a broker that was restarted may repeat the
                    # presence of devices that have died meanwhile.
                    answer = loop.call_later(ANSWER_PAUSE, connection.say_present)
        except asyncio.CancelledError:
            await connection.farewell()
            raise
        finally:
            if answer is not None:
                answer.cancel()
            lost, self._connection = self._connection is not None, None
            connection.close()
            if lost:
                self._listener.broker_lost()

    def _deliver(self, topic: Topic, message: Message) -> None:
        match message:
            case mqtt_pb2.DesiredNotice():
                self._listener.desired_noticed(message)
            case mqtt_pb2.JournalAck():
                self._listener.journal_acknowledged(message)
            case mqtt_pb2.ChannelInvitation():
                self._listener.channel_invited(message)
            case _:
                log.warning("unexpected_message", topic=topic)
