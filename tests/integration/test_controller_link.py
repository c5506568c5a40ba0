"""The controller's connection to a real broker."""

import asyncio
import ssl
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from controller.local.broker import CONTROLLER, LocalBroker
from controller.mqtt.link import BrokerLink, BrokerSettings, Received
from controller.pki import CertificateAuthority
from longshore.topics import RULES, Topic, device_topic
from longshore.v1 import mqtt_pb2
from tests.support.async_waiting import until

DEVICES = ["dev-1", "dev-2"]


def leave_retained(broker: LocalBroker, folder: Path, device_id: str) -> None:
    """What a device that was there for a while leaves at the broker."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device_id, protocol=mqtt.MQTTv5)
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / f"{device_id}.crt", folder / f"{device_id}.key")
    client.tls_set_context(context)
    client.connect(broker.host, broker.port)
    client.loop_start()
    for topic, said in (
        (Topic.PRESENCE, mqtt_pb2.Presence(online=True, session=1)),
        (Topic.STATUS, mqtt_pb2.StatusSnapshot(sequence=2)),
    ):
        rule = RULES[topic]
        name = device_topic(device_id, topic)
        client.publish(name, said.SerializeToString(), rule.qos, rule.retain).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


async def test_what_devices_said_last_is_heard_before_who_is_there(tmp_path: Path) -> None:
    ca = CertificateAuthority.create(tmp_path)
    for name in (*DEVICES, CONTROLLER):
        ca.issue_client(name).write(tmp_path, name)
    async with LocalBroker(tmp_path / "broker", ca) as broker:
        for device_id in DEVICES:
            await asyncio.to_thread(leave_retained, broker, tmp_path, device_id)
        heard: list[Received] = []
        certificate, key = (tmp_path / f"{CONTROLLER}.{kind}" for kind in ("crt", "key"))
        settings = BrokerSettings(broker.host, broker.port, tmp_path / "ca.crt", certificate, key)
        link = BrokerLink(settings, heard.append, lambda _connected: None)
        link.start()
        await until(lambda: len(heard) == 2 * len(DEVICES))
        await link.stop()
    assert [message.topic for message in heard] == [Topic.STATUS] * 2 + [Topic.PRESENCE] * 2
