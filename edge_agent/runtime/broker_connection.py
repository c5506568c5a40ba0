"""One MQTT 5 session on one socket, driven by the event loop. The only module of the agent that knows paho.

Each connection has a client of its own: a will carries the number of its session, and nothing that was queued for a
broken connection is said late (publishers say it anew).
https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html
"""

import asyncio
import socket
import ssl
import time
from typing import Any

import structlog
from google.protobuf.message import DecodeError, Message
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.runtime.addresses import parse_address
from edge_agent.runtime.dates import doubt
from edge_agent.runtime.identity import Identity
from edge_agent.runtime.threads import in_thread
from longshore.topics import RULES, Topic, device_topic, parse_topic
from longshore.v1 import mqtt_pb2

log = structlog.get_logger()

# How often paho may look at its clocks; its pings are late by this much at most.
MISC_PERIOD = 10.0
CONNECT_TIMEOUT = 15.0
# For so many seconds the broker keeps QoS 1 messages for a device that is away.
SESSION_EXPIRY = 600
FAREWELL_TIMEOUT = 3.0
SUBSCRIBED = [topic for topic, rule in RULES.items() if rule.publisher == "controller"]


class BrokerLost(Exception):
    """There is no connection (any more); the text says why."""


class BrokerConnection:
    """To be opened once, read until it raises BrokerLost, and closed in any case."""

    def __init__(self, identity: Identity, session: int, keepalive: float) -> None:
        """`keepalive`: seconds without a message after which the broker is asked whether it is there, and after one and
        a half of which it takes a silent device for gone."""
        self.session = session
        self._keepalive = round(keepalive)
        self._device_id = identity.device_id
        self._address = parse_address(identity.broker_address)
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[tuple[Topic, Message] | Exception] = asyncio.Queue()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._farewell_said: asyncio.Future[None] = self._loop.create_future()
        self._farewell_mid: int | None = None
        self._client = self._make_client(identity)

    def _make_client(self, identity: Identity) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, client_id=self._device_id, protocol=MQTTProtocolVersion.MQTTv5)
        client.tls_set_context(_tls_context(identity))
        client.connect_timeout = CONNECT_TIMEOUT
        rule, will = RULES[Topic.PRESENCE], self._presence(online=False)
        client.will_set(self._name(Topic.PRESENCE), will.SerializeToString(), rule.qos, rule.retain)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        return client

    async def open(self) -> None:
        """Afterwards the broker has accepted the session, and presence and subscriptions are on their way.

        Raises BrokerLost.
        """
        try:
            # Name lookup, TCP and TLS block; once they are done the socket belongs to the event loop.
            await in_thread(self._dial, abandoned=self._hang_up)
        except (OSError, ValueError) as error:
            host, port = self._address
            raise BrokerLost(doubt(f"the broker at {host}:{port}", str(error)) or f"cannot connect: {error}") from error
        self._attach()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._accepted
        except TimeoutError:
            raise BrokerLost(f"no answer to CONNECT within {CONNECT_TIMEOUT:.0f} s") from None
        self.say_present()
        self._client.subscribe([(self._name(topic), SubscribeOptions(qos=RULES[topic].qos)) for topic in SUBSCRIBED])

    def publish(self, topic: Topic, message: Message) -> int:
        """Queues a message as the topic's rule says; the number under which it will be acknowledged."""
        rule = RULES[topic]
        return self._client.publish(self._name(topic), message.SerializeToString(), rule.qos, rule.retain).mid

    def say_present(self) -> None:
        """Tells the broker, and whoever asks at this moment, that the device is here."""
        self.publish(Topic.PRESENCE, self._presence(online=True))

    async def receive(self) -> tuple[Topic, Message]:
        """The next message; waits for it. Raises BrokerLost when the connection has ended."""
        while True:
            try:
                async with asyncio.timeout(MISC_PERIOD):
                    event = await self._inbox.get()
            except TimeoutError:
                self._client.loop_misc()
                continue
            if isinstance(event, Exception):
                raise event
            return event

    async def farewell(self) -> None:
        """Afterwards the broker knows that this device goes on purpose, if it answers soon."""
        if self._client.socket() is None or not self._client.is_connected():
            return
        self._farewell_mid = self.publish(Topic.PRESENCE, self._presence(online=False))
        try:
            async with asyncio.timeout(FAREWELL_TIMEOUT):
                await self._farewell_said
        except TimeoutError:
            log.warning("farewell_unanswered")
            return
        self._client.disconnect()
        self._client.loop_write()

    def close(self) -> None:
        """Afterwards the socket is closed; without `farewell` the broker publishes the will. Idempotent."""
        client, sock = self._client, self._client.socket()
        client.on_disconnect = client.on_socket_close = client.on_socket_unregister_write = None
        self._accepted.cancel()
        self._forget_socket(sock)
        self._hang_up()

    def _dial(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY
        host, port = self._address
        self._client.connect(host, port, self._keepalive, clean_start=False, properties=properties)
        if isinstance(sock := self._client.socket(), ssl.SSLSocket):
            # Else a status that follows an acknowledgement waits 40 ms for the broker's delayed ACK.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _hang_up(self) -> None:
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    def _attach(self) -> None:
        client, loop, sock = self._client, self._loop, self._client.socket()
        if sock is None:
            raise BrokerLost("the connection was closed at once")
        client.on_socket_close = lambda _client, _data, closing: self._forget_socket(closing)
        client.on_socket_register_write = lambda *_: loop.add_writer(sock.fileno(), self._writable)
        client.on_socket_unregister_write = lambda _client, _data, full: self._pause_writing(full)
        loop.add_reader(sock.fileno(), self._readable)
        if client.want_write():
            loop.add_writer(sock.fileno(), self._writable)

    def _pause_writing(self, sock: Any) -> None:
        if sock.fileno() >= 0:
            self._loop.remove_writer(sock.fileno())

    def _forget_socket(self, sock: Any) -> None:
        if sock is not None and (descriptor := sock.fileno()) >= 0:
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)

    def _readable(self) -> None:
        try:
            self._client.loop_read()
            # What TLS has decrypted already does not make the socket readable again.
            while isinstance(sock := self._client.socket(), ssl.SSLSocket) and sock.pending():
                self._client.loop_read()
        except Exception as error:  # noqa: BLE001  # raised again by `receive`
            self._fail(error)

    def _writable(self) -> None:
        try:
            self._client.loop_write()
        except Exception as error:  # noqa: BLE001  # raised again by `receive`
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._forget_socket(self._client.socket())
        if not self._accepted.done():
            self._accepted.set_exception(error)
        self._inbox.put_nowait(error)

    def _on_connect(
        self, _client: Client, _data: object, _flags: ConnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        if self._accepted.done():
            return
        if code.is_failure:
            self._accepted.set_exception(BrokerLost(f"the broker refuses this device: {code}"))
        else:
            self._accepted.set_result(None)

    def _on_disconnect(
        self, _client: Client, _data: object, flags: DisconnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        whose = "the broker ended the connection" if flags.is_disconnect_packet_from_server else "connection lost"
        self._fail(BrokerLost(f"{whose}: {code}"))

    def _on_subscribe(
        self, _client: Client, _data: object, _mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        for topic, code in zip(SUBSCRIBED, codes, strict=False):
            if code.is_failure:
                log.error("subscription_refused", topic=self._name(topic), reason=str(code))

    def _on_publish(
        self, _client: Client, _data: object, mid: int, code: ReasonCode, _properties: Properties | None
    ) -> None:
        if code.is_failure:
            log.error("publication_refused", device=self._device_id, reason=str(code))
        if mid == self._farewell_mid and not self._farewell_said.done():
            self._farewell_said.set_result(None)

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        if not message.payload:
            # The topic was cleared: this is a device no more.
            return
        try:
            _, topic = parse_topic(message.topic)
            self._inbox.put_nowait((topic, RULES[topic].payload.FromString(bytes(message.payload))))
        except (ValueError, DecodeError) as error:
            log.warning("message_dropped", topic=message.topic, error=str(error))

    def _presence(self, *, online: bool) -> mqtt_pb2.Presence:
        presence = mqtt_pb2.Presence(online=online, session=self.session)
        presence.since.FromNanoseconds(time.time_ns())
        return presence

    def _name(self, topic: Topic) -> str:
        return device_topic(self._device_id, topic)


def _tls_context(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(identity.ca_file)
    context.load_cert_chain(identity.certificate_file, identity.key_file)
    return context
