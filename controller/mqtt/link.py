"""The connection to the MQTT broker: the only module of the controller that imports paho.

MQTT 5 (OASIS), mutual TLS. paho's own thread does the network; everything else happens on the event loop.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import structlog
from google.protobuf.message import DecodeError, Message
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from longshore.topics import RULES, Topic, device_topic, parse_topic

log = structlog.get_logger()
KEEPALIVE = 30
# Unacknowledged messages that the broker may send: without it, Mosquitto stops after 20.
RECEIVE_MAXIMUM = 1000
# Brokers give retained messages in this order: what is true on a device is known before the device counts as being
# there, so that no older status passes for the present one.
HEARD = (Topic.STATUS, Topic.JOURNAL, Topic.PRESENCE, Topic.METRICS)


@dataclass(frozen=True)
class BrokerSettings:
    """Where the broker is and which files prove who we are."""

    host: str
    port: int
    ca_file: Path
    certificate_file: Path
    key_file: Path


@dataclass(frozen=True)
class Received:
    """A message of a device, decoded. `retained`: the broker kept it; nobody says it at this moment. `at`: when it
    arrived, in seconds since 1970; it may be stored much later."""

    device_id: str
    topic: Topic
    payload: Message
    retained: bool
    at: float


class BrokerLink:
    """Stays connected for ever, with back-off. Callbacks run on the event loop and must not block."""

    def __init__(
        self,
        settings: BrokerSettings,
        on_message: Callable[[Received], None],
        on_connection: Callable[[bool], None],
        client_id: str = "controller",
    ) -> None:
        self._settings = settings
        self._on_message = on_message
        self._on_connection = on_connection
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_message = self._received
        self._client.on_socket_open = _send_at_once
        self._client.reconnect_delay_set(min_delay=1, max_delay=15)
        self._client.max_inflight_messages_set(1000)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begins to connect; `on_connection(True)` tells when it has worked. Call it on the event loop."""
        self._loop = asyncio.get_running_loop()
        context = ssl.create_default_context(cafile=str(self._settings.ca_file))
        context.load_cert_chain(self._settings.certificate_file, self._settings.key_file)
        self._client.tls_set_context(context)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        self._client.connect_async(
            self._settings.host, self._settings.port, keepalive=KEEPALIVE, clean_start=True, properties=properties
        )
        self._client.loop_start()

    async def stop(self) -> None:
        """Disconnects; queued messages are given up (they are said anew at the next start)."""
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    @property
    def connected(self) -> bool:
        return self._client.is_connected()

    def publish(self, device_id: str, topic: Topic, payload: Message) -> None:
        """Hands a message to the broker as the topic's rule says. Lost while there is no connection: what matters
        is said anew after each connect."""
        rule = RULES[topic]
        if not isinstance(payload, rule.payload):
            raise TypeError(f"{topic} carries {rule.payload.__name__}, not {type(payload).__name__}")
        if self._client.is_connected():
            body = payload.SerializeToString()
            self._client.publish(device_topic(device_id, topic), body, qos=rule.qos, retain=rule.retain)

    def clear(self, device_id: str, topics: Iterable[Topic]) -> None:
        """The broker forgets what it keeps of these topics. Lost while there is no connection."""
        if self._client.is_connected():
            for topic in topics:
                self._client.publish(device_topic(device_id, topic), b"", qos=RULES[topic].qos, retain=True)

    def hear_again(self) -> None:
        """Subscribes: the broker says again what it keeps. Harmless without a connection, whose beginning does it."""
        self._client.subscribe([(device_topic("+", topic), SubscribeOptions(qos=RULES[topic].qos)) for topic in HEARD])

    def _connected(
        self, _client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        if reason.is_failure:
            log.warning("broker refuses the controller", reason=str(reason))
            return
        self.hear_again()
        log.info("broker connected", address=f"{self._settings.host}:{self._settings.port}")
        self._call(self._on_connection, True)

    def _disconnected(
        self, _client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        log.warning("broker connection lost", reason=str(reason))
        self._call(self._on_connection, False)

    def _received(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        if not message.payload:
            # A topic was cleared.
            return
        try:
            device_id, topic = parse_topic(message.topic)
            payload = RULES[topic].payload.FromString(bytes(message.payload))
        except (ValueError, DecodeError) as error:
            log.warning("message is not understood", topic=message.topic, error=str(error))
            return
        self._call(self._on_message, Received(device_id, topic, payload, message.retain, time.time()))

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


def _send_at_once(_client: mqtt.Client, _data: object, sock: Any) -> None:
    """Else an acknowledgement that follows a bell waits 40 ms for the broker's delayed ACK, and a device with what it
    has to say next."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
