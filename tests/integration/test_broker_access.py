"""The real broker lets a device reach its own topics only, each in its direction."""

import socket
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from controller.local.broker import CONTROLLER, LocalBroker
from controller.pki import CertificateAuthority
from longshore.topics import PREFIX, RULES, Topic, device_topic
from tests.support.waiting import eventually


class Client:
    """A paho client that notes what it hears, and whether it was cut off. `name`: whose certificate it has; it calls
    itself `client_id`, or by that name. Its last will is a presence."""

    def __init__(self, broker: LocalBroker, folder: Path, name: str, client_id: str = "") -> None:
        self.heard: list[str] = []
        self.cut_off = threading.Event()
        self._subscribed = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id or name, protocol=mqtt.MQTTv5)
        self._client.will_set(device_topic(name, Topic.PRESENCE), b"will", qos=1)
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
        self._client.tls_set_context(context)
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_disconnect = lambda *_: self.cut_off.set()
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()

    def subscribe(self, topic: str) -> None:
        """Afterwards the broker has answered, so that all which it sent before is here."""
        self._subscribed.clear()
        self._client.subscribe(topic, options=SubscribeOptions(qos=1))
        assert self._subscribed.wait(10)

    def publish(self, topic: str) -> None:
        self._client.publish(topic, b"x", qos=1).wait_for_publish(10)

    def hear_until(self, topic: str, times: int = 1) -> list[str]:
        """All topics heard until this one came so often."""
        eventually(lambda: self.heard.count(topic) >= times, why=f"heard {self.heard}")
        return self.heard

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self.heard.append(message.topic)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[LocalBroker]:
    ca = CertificateAuthority.create(folder)
    for name in ("dev-1", "dev-2", CONTROLLER):
        ca.issue_client(name).write(folder, name)
    async with LocalBroker(folder / "broker", ca) as running:
        yield running


async def test_a_device_is_heard_on_its_own_topics_only(broker: LocalBroker, folder: Path) -> None:
    controller, device = Client(broker, folder, CONTROLLER), Client(broker, folder, "dev-1")
    controller.subscribe(f"{PREFIX}/#")
    for topic in Topic:
        device.publish(device_topic("dev-2", topic))
        device.publish(device_topic("dev-1", topic))
    device.publish(f"{PREFIX}/dev-1/status/deeper")
    device.publish("longshore/v1/else")
    # The last that a device may say: all that came before it has been decided.
    device.publish(device_topic("dev-1", Topic.PRESENCE))
    heard = controller.hear_until(device_topic("dev-1", Topic.PRESENCE), times=2)
    allowed = {device_topic("dev-1", topic) for topic, rule in RULES.items() if rule.publisher == "device"}
    assert set(heard) == allowed
    controller.close()
    device.close()


async def test_a_device_hears_its_own_topics_only(broker: LocalBroker, folder: Path) -> None:
    controller, device = Client(broker, folder, CONTROLLER), Client(broker, folder, "dev-1")
    for topic in ("#", f"{PREFIX}/+/desired", f"{PREFIX}/dev-2/desired", f"{PREFIX}/dev-1/desired"):
        device.subscribe(topic)
    controller.publish(device_topic("dev-2", Topic.DESIRED))
    controller.publish(device_topic("dev-2", Topic.CHANNEL))
    controller.publish(device_topic("dev-1", Topic.DESIRED))
    assert set(device.hear_until(device_topic("dev-1", Topic.DESIRED))) == {device_topic("dev-1", Topic.DESIRED)}
    controller.close()
    device.close()


@pytest.mark.parametrize("other", [CONTROLLER, "dev-2"])
async def test_a_device_cannot_take_the_session_of_another_client(
    broker: LocalBroker, folder: Path, other: str
) -> None:
    victim = Client(broker, folder, other)
    victim.subscribe(device_topic("dev-2", Topic.DESIRED))
    intruder = Client(broker, folder, "dev-1", client_id=other)
    intruder.publish(device_topic("dev-1", Topic.PRESENCE))
    # Its answer comes after whatever the intruder has brought upon it.
    victim.subscribe(device_topic("dev-2", Topic.CHANNEL))
    assert not victim.cut_off.is_set()
    intruder.close()
    victim.close()


async def test_no_will_of_a_device_is_published_by_another_one(broker: LocalBroker, folder: Path) -> None:
    controller, victim = Client(broker, folder, CONTROLLER), Client(broker, folder, "dev-2")
    controller.subscribe(f"{PREFIX}/#")
    intruder = Client(broker, folder, "dev-1", client_id="dev-2")
    intruder.publish(device_topic("dev-1", Topic.PRESENCE))
    assert controller.hear_until(device_topic("dev-1", Topic.PRESENCE)) == [device_topic("dev-1", Topic.PRESENCE)]
    for client in (controller, victim, intruder):
        client.close()


def refused(broker: LocalBroker, folder: Path, certificate: str) -> bool:
    """Whether the broker ends the TLS session of a client with this certificate ("" for none)."""
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    if certificate:
        context.load_cert_chain(folder / f"{certificate}.crt", folder / f"{certificate}.key")
    # An MQTT 5 CONNECT without anything optional; the broker answers it with a CONNACK, or ends the connection.
    connect = bytes([0x10, 13 + 1, 0, 4, *b"MQTT", 5, 2, 0, 60, 0, 0, 1, ord("x")])
    with socket.create_connection((broker.host, broker.port), timeout=10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=broker.host) as secure:
                secure.sendall(connect)
                return secure.recv(1) != b"\x20"
        except (ssl.SSLError, ConnectionError):
            return True


async def test_a_stranger_is_not_let_in(broker: LocalBroker, folder: Path) -> None:
    foreign = CertificateAuthority.create(folder / "foreign")
    foreign.issue_client(CONTROLLER).write(folder, "foreign")
    ours = CertificateAuthority.load(folder)
    ours.issue_server(["localhost"]).write(folder, "server")
    assert not refused(broker, folder, "dev-1")
    assert refused(broker, folder, "")
    assert refused(broker, folder, "foreign")
    assert refused(broker, folder, "server")
