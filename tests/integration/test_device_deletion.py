"""A device that is deleted is expected nowhere any more; its name is free, and its certificate opens nothing."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import paho.mqtt.client as mqtt
import pytest
import pytest_asyncio
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt.enums import CallbackAPIVersion

from controller.local.stack import LocalStack
from edge_agent.runtime.controller_link import ControllerLink, ControllerRefused
from edge_agent.runtime.enrollment import EnrollmentRequest, enroll, parse_token
from edge_agent.runtime.identity import Identity
from longshore.client import Client
from longshore.errors import Reason
from longshore.failures import LongshoreError
from longshore.topics import PREFIX, Topic
from longshore.v1 import agent_pb2, agent_pb2_grpc, device_pb2, event_pb2, mqtt_pb2
from tests.support.async_waiting import until
from tests.support.talking_device import TalkingDevice
from tests.support.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("device-deletion")]
FACTS = device_pb2.DeviceFacts(architecture="amd64")


@dataclass(frozen=True)
class Side:
    """A controller with its broker, and its administrator."""

    folder: Path
    stack: LocalStack
    client: Client

    async def call(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)

    async def token(self, name: str) -> str:
        return str((await asyncio.to_thread(lambda: self.client.create_enroll_token(device_name=name))).token)

    async def enroll(self, name: str, token: str = "") -> Identity:
        request = EnrollmentRequest(token or await self.token(name), FACTS, profile="x86-cpu")
        return await enroll(self.folder / f"agent-{name}-{id(request)}", request)

    async def names(self) -> list[str]:
        return [device.name for device in await self.call(lambda: list(self.client.list_devices()))]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def side(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Side]:
    folder = tmp_path_factory.mktemp("side")
    async with LocalStack(folder / "controller") as stack:
        context = yaml.safe_load(stack.context_file.read_text())
        with Client(context["address"], context["token"], context["ca"]) as client:
            yield Side(folder, stack, client)


async def refusal(link: ControllerLink) -> str:
    """The code with which the controller refuses each call of the device."""
    codes = set()
    for call in (link.get_desired(0), link.registry_credential(), link.leave()):
        with pytest.raises(ControllerRefused, match="it has to enroll again") as caught:
            await call
        codes.add(caught.value.code)
    (code,) = codes
    return code


async def test_a_deleted_device_is_refused_and_its_name_is_free(side: Side) -> None:
    identity = await side.enroll("crane")
    link = ControllerLink(identity)
    await link.get_desired(0)
    await side.call(side.client.delete_device, "crane")
    assert await refusal(link) == "PERMISSION_DENIED"
    await link.close()
    assert "crane" not in await side.names()
    with pytest.raises(LongshoreError) as caught:
        await side.call(side.client.delete_device, identity.device_id)
    assert caught.value.reason == Reason.NO_SUCH_DEVICE
    again = await side.enroll("crane")
    assert again.device_id != identity.device_id
    told = await side.call(lambda: list(side.client.watch_events(None)))
    states = [(event.device_id, event.state) for event in told if event.kind == event_pb2.EVENT_KIND_DEVICE]
    mine = [state for device_id, state in states if device_id == identity.device_id]
    assert mine == ["ENROLLED", "DELETED"]
    await side.call(side.client.delete_device, again.device_id)


async def test_a_device_that_leaves_is_deleted(side: Side) -> None:
    link = ControllerLink(await side.enroll("leaving"))
    await link.leave()
    assert "leaving" not in await side.names()
    assert await refusal(link) == "PERMISSION_DENIED"
    await link.close()


def request_for(key: ec.EllipticCurvePrivateKey, token: str) -> agent_pb2.EnrollRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    secret = parse_token(token).secret
    return agent_pb2.EnrollRequest(token_secret=secret, certificate_request=csr, proposed_profile="x86-cpu")


async def test_the_same_token_and_key_make_one_device_however_often_they_are_sent(side: Side) -> None:
    token = await side.token("once")
    mine, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    credentials = grpc.ssl_channel_credentials(parse_token(token).ca_certificate.encode())
    async with grpc.aio.secure_channel(parse_token(token).controller_address, credentials) as channel:
        stub = agent_pb2_grpc.AgentServiceStub(channel)
        answers = [await stub.Enroll(request_for(mine, token)) for _ in range(3)]
        assert len({answer.device_id for answer in answers}) == 1
        certificate = x509.load_pem_x509_certificate(answers[-1].certificate.encode())
        assert certificate.public_key() == mine.public_key()
        assert (await side.names()).count("once") == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Enroll(request_for(other, token))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        # A device that was deleted does not come back by what made it.
        await side.call(side.client.delete_device, "once")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Enroll(request_for(mine, token))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_what_the_broker_keeps_of_a_deleted_device_is_cleared_also_if_it_speaks_on(side: Side) -> None:
    gone, stays = await side.enroll("gone"), await side.enroll("stays")
    speaking, witness = await asyncio.to_thread(TalkingDevice, gone), await asyncio.to_thread(TalkingDevice, stays)
    await speaks(speaking)
    online = device_pb2.DEVICE_PRESENCE_ONLINE
    await until(lambda: side.client.get_device("gone").presence == online, seconds=30)
    await side.call(side.client.delete_device, "gone")
    await speaks(speaking)
    # Acknowledged after all that was said before.
    await asyncio.to_thread(witness.journal, 1, "dep-none")
    await until(lambda: witness.acknowledged == [1], seconds=30)
    for device in (speaking, witness):
        await asyncio.to_thread(device.leave)
    await side.stack.controller.kill()
    try:
        kept = await asyncio.to_thread(kept_by_the_broker, side.stack, stays.broker_address)
    finally:
        await side.stack.start_controller()
    assert {name.split("/")[-2] for name in kept} >= {stays.device_id}
    assert [name for name in kept if gone.device_id in name] == []


async def speaks(device: TalkingDevice) -> None:
    await asyncio.to_thread(device.say, Topic.PRESENCE, mqtt_pb2.Presence(online=True, session=1))
    await asyncio.to_thread(device.say, Topic.STATUS, mqtt_pb2.StatusSnapshot(sequence=1))


def kept_by_the_broker(stack: LocalStack, address: str) -> list[str]:
    """Names of the topics of which it keeps a message; seen by the controller's certificate while it is away."""
    folder, marker = stack.folder, f"{PREFIX}/marker/seen"
    names: list[str] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    context = ssl.create_default_context(cafile=str(stack.ca_file))
    context.load_cert_chain(folder.tls / "controller.crt", folder.tls / "controller.key")
    client.tls_set_context(context)
    client.on_message = lambda _client, _data, message: names.append(message.topic)
    host, _, port = address.rpartition(":")
    client.connect(host, int(port))
    client.subscribe(f"{PREFIX}/#", 1)
    client.publish(marker, b"x", 1)

    def heard_all() -> bool:
        return client.loop(1) == mqtt.MQTT_ERR_SUCCESS and marker in names

    eventually(heard_all, seconds=30)
    client.disconnect()
    return [name for name in names if name != marker]
