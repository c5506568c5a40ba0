"""An enrolled device of which only its words at the broker exist."""

import ssl

import paho.mqtt.client as mqtt
from google.protobuf.message import Message
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.runtime.identity import Identity
from longshore.topics import RULES, Topic, device_topic
from longshore.v1 import mqtt_pb2, types_pb2


class TalkingDevice:
    """`acknowledged`: numbers of its journal, as it is told that they are durable."""

    def __init__(self, identity: Identity) -> None:
        self._device_id = identity.device_id
        self.acknowledged: list[int] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=identity.device_id, protocol=mqtt.MQTTv5)
        context = ssl.create_default_context(cafile=str(identity.ca_file))
        context.load_cert_chain(identity.certificate_file, identity.key_file)
        self._client.tls_set_context(context)
        self._client.on_message = self._heard
        host, _, port = identity.broker_address.rpartition(":")
        self._client.connect(host, int(port))
        self._client.subscribe(device_topic(self._device_id, Topic.JOURNAL_ACK), 1)
        self._client.loop_start()

    def say(self, topic: Topic, payload: Message) -> None:
        """Afterwards the broker has it."""
        rule = RULES[topic]
        name = device_topic(self._device_id, topic)
        self._client.publish(name, payload.SerializeToString(), rule.qos, rule.retain).wait_for_publish(10)

    def journal(self, number: int, deployment_id: str) -> None:
        status = types_pb2.InstanceStatus(
            deployment_id=deployment_id, revision=1, state=types_pb2.INSTANCE_STATE_FAILED, message=f"entry {number}"
        )
        entry = mqtt_pb2.JournalEntry(number=number, journal_id="j", instance=status)
        self.say(Topic.JOURNAL, mqtt_pb2.JournalBatch(entries=[entry]))

    def leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _heard(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self.acknowledged.append(mqtt_pb2.JournalAck.FromString(bytes(message.payload)).number)
