"""A client of the broker with the controller's rights, or one that only looks on: sees what devices publish."""

import ssl
import threading
from collections.abc import Callable
from pathlib import Path

from google.protobuf.message import Message
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from controller.local.broker import CONTROLLER, LocalBroker, access_list
from controller.local.process import ChildProcess
from controller.local.stack import LocalStack
from controller.pki import CertificateAuthority
from longshore.topics import PREFIX, RULES, Topic, device_topic, parse_topic
from longshore.v1 import mqtt_pb2

# Called for each journal batch, in the client's thread; what it returns is acknowledged, None is not.
Acknowledger = Callable[[mqtt_pb2.JournalBatch], mqtt_pb2.JournalAck | None]


def acknowledge_all(batch: mqtt_pb2.JournalBatch) -> mqtt_pb2.JournalAck | None:
    last = batch.entries[-1]
    return mqtt_pb2.JournalAck(journal_id=last.journal_id, number=last.number)


def acknowledge_nothing(_: mqtt_pb2.JournalBatch) -> mqtt_pb2.JournalAck | None:
    return None


ONLOOKER = "onlooker"


class ObservedBroker(LocalBroker):
    """A broker that also lets an onlooker read, beside the controller."""

    def _configured(self) -> ChildProcess:
        process = super()._configured()
        self._written("acl", f"{access_list()}\nuser {ONLOOKER}\ntopic read {PREFIX}/#\n")
        return process


def watch_broker(stack: LocalStack) -> None:
    """From its start on, its broker lets an onlooker read."""
    stack.broker = ObservedBroker(stack.folder.root / "broker", stack.ca, stack.broker.host, stack.broker.port)


def onlooker(stack: LocalStack) -> "BrokerObserver":
    """Of a broker that is watched."""
    return BrokerObserver(stack.folder.root.with_name("onlooker"), stack.ca, stack.broker, ONLOOKER)


class BrokerObserver:
    """`with BrokerObserver(...)`: connected and subscribed when the block begins; connects again by itself.

    As `user` it has the controller's rights and rings bells, where no controller is; ONLOOKER only reads, beside one.
    """

    def __init__(self, folder: Path, ca: CertificateAuthority, broker: LocalBroker, user: str = CONTROLLER) -> None:
        self._broker = broker
        self._subscribed = threading.Event()
        self._lock = threading.Lock()
        self._messages: list[tuple[str, Message]] = []
        self.acknowledger: Acknowledger = acknowledge_nothing
        folder.mkdir(exist_ok=True)
        certificate, key = ca.issue_client(user).write(folder, "observer")
        (folder / "ca.crt").write_text(ca.certificate_pem)
        context = ssl.create_default_context(cafile=folder / "ca.crt")
        context.load_cert_chain(certificate, key)
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=user, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.tls_set_context(context)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{PREFIX}/#", options=SubscribeOptions(qos=1))
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message

    def __enter__(self) -> "BrokerObserver":
        self._client.connect(self._broker.host, self._broker.port)
        self._client.loop_start()
        if not self._subscribed.wait(10):
            raise TimeoutError("the observer cannot subscribe")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        device_id, topic = parse_topic(message.topic)
        payload = RULES[topic].payload.FromString(bytes(message.payload))
        with self._lock:
            self._messages.append((device_id, payload))
        if isinstance(payload, mqtt_pb2.JournalBatch) and (ack := self.acknowledger(payload)) is not None:
            self.publish(device_id, Topic.JOURNAL_ACK, ack)

    def publish(self, device_id: str, topic: Topic, message: Message) -> None:
        rule = RULES[topic]
        self._client.publish(device_topic(device_id, topic), message.SerializeToString(), rule.qos, rule.retain)

    def seen(self) -> list[Message]:
        with self._lock:
            return [message for _, message in self._messages]

    def presences(self) -> list[mqtt_pb2.Presence]:
        return [message for message in self.seen() if isinstance(message, mqtt_pb2.Presence)]

    def snapshots(self) -> list[mqtt_pb2.StatusSnapshot]:
        return [message for message in self.seen() if isinstance(message, mqtt_pb2.StatusSnapshot)]

    def entries(self, device_id: str = "") -> list[mqtt_pb2.JournalEntry]:
        """All journal entries, or those of one device, in the order in which they came, repeated ones included."""
        with self._lock:
            messages = list(self._messages)
        batches = [
            message
            for sender, message in messages
            if isinstance(message, mqtt_pb2.JournalBatch) and device_id in ("", sender)
        ]
        return [entry for batch in batches for entry in batch.entries]
