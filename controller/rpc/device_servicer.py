"""DeviceService, EventService and AgentService."""

import base64
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from controller.devices.model import Device
from controller.devices.service import DeviceService, Enrollment, delete
from controller.errors import InvalidRequest, PermissionDenied
from controller.events.feed import EventFeed, Filter, Heartbeat
from controller.events.model import NO_PROJECT, EventKind
from controller.pki import CertificateAuthority
from controller.pki.authority import renewal_due
from controller.rpc import convert
from controller.rpc.access import require_project, visible_user
from controller.rpc.desired import desired_state
from controller.rpc.interceptor import caller
from controller.rpc.sessions import Sessions
from controller.sealing import SecretBox
from controller.store import Store, Transaction
from controller.web.registry_tokens import RegistryTokens
from longshore.errors import Reason
from longshore.v1 import agent_pb2, agent_pb2_grpc, device_pb2, device_pb2_grpc, event_pb2, event_pb2_grpc

# A device that claims more than this would use the numbers up.
GREATEST_GENERATION = 2**53


class DeviceServicer(device_pb2_grpc.DeviceServiceServicer):
    """`public_address` is where a machine with a token of `ca` enrolls."""

    def __init__(self, devices: DeviceService, ca: CertificateAuthority, public_address: str) -> None:
        self._devices = devices
        self._ca = ca
        self._public_address = public_address

    async def CreateEnrollToken(
        self, request: device_pb2.CreateEnrollTokenRequest, context: Any
    ) -> device_pb2.CreateEnrollTokenResponse:
        try:
            lifetime = request.lifetime.ToTimedelta()
        except (OverflowError, ValueError):
            raise InvalidRequest("lifetime", "expected more than 0 and at most 30 days") from None
        secret, expires = await self._devices.create_token(
            request.device_name, dict(request.labels), request.profile, lifetime
        )
        return device_pb2.CreateEnrollTokenResponse(token=self._token(secret), expires=convert.timestamp(expires))

    async def GetDevice(self, request: device_pb2.GetDeviceRequest, context: Any) -> device_pb2.GetDeviceResponse:
        return device_pb2.GetDeviceResponse(device=await self._message(await self._devices.find(request.device)))

    async def ListDevices(self, request: device_pb2.ListDevicesRequest, context: Any) -> device_pb2.ListDevicesResponse:
        page = convert.page_from(request.page)
        found, token = await self._devices.page(request.profile, dict(request.labels), page)
        evidence = await self._devices.evidence(found)
        messages = [convert.device_to(device, evidence) for device in found]
        return device_pb2.ListDevicesResponse(devices=messages, next_page_token=token)

    async def DeleteDevice(
        self, request: device_pb2.DeleteDeviceRequest, context: Any
    ) -> device_pb2.DeleteDeviceResponse:
        await self._devices.delete(request.device)
        return device_pb2.DeleteDeviceResponse()

    async def LabelDevice(self, request: device_pb2.LabelDeviceRequest, context: Any) -> device_pb2.LabelDeviceResponse:
        device = await self._devices.label(request.device, dict(request.labels), list(request.remove))
        return device_pb2.LabelDeviceResponse(device=await self._message(device))

    async def CordonDevice(
        self, request: device_pb2.CordonDeviceRequest, context: Any
    ) -> device_pb2.CordonDeviceResponse:
        device = await self._devices.cordon(request.device, caller.get().name, request.reason)
        return device_pb2.CordonDeviceResponse(device=await self._message(device))

    async def DrainDevice(self, request: device_pb2.DrainDeviceRequest, context: Any) -> device_pb2.DrainDeviceResponse:
        device = await self._devices.drain(request.device, caller.get().name, request.reason)
        return device_pb2.DrainDeviceResponse(device=await self._message(device))

    async def UncordonDevice(
        self, request: device_pb2.UncordonDeviceRequest, context: Any
    ) -> device_pb2.UncordonDeviceResponse:
        device = await self._devices.uncordon(request.device)
        return device_pb2.UncordonDeviceResponse(device=await self._message(device))

    async def _message(self, device: Device) -> device_pb2.Device:
        return convert.device_to(device, await self._devices.evidence([device]))

    def _token(self, secret: str) -> str:
        """All that a machine needs to enroll, in one word."""
        token = device_pb2.JoinToken(
            controller_address=self._public_address, ca_certificate=self._ca.certificate_pem, secret=secret
        )
        return base64.urlsafe_b64encode(token.SerializeToString()).decode().rstrip("=")


class EventServicer(event_pb2_grpc.EventServiceServicer):
    def __init__(self, feed: EventFeed) -> None:
        self._feed = feed

    async def WatchEvents(
        self, request: event_pb2.WatchEventsRequest, context: Any
    ) -> AsyncIterator[event_pb2.WatchEventsResponse]:
        project = NO_PROJECT
        if request.project.user_id or request.project.project_id:
            project = convert.project_from(request.project)
            require_project(project)
        elif visible_user():
            raise PermissionDenied(Reason.NOT_ALLOWED, "events of devices are for administrators; name a project")
        kinds = tuple(map(EventKind, convert.names_from("kinds", event_pb2.EventKind, "EVENT_KIND_", request.kinds)))
        only = Filter(request.deployment_id, request.build_id, request.device_id, kinds, tuple(request.states))
        async for event in self._feed.watch(project, request.after_number, request.follow, only):
            if isinstance(event, Heartbeat):
                yield event_pb2.WatchEventsResponse(heartbeat=True, searched_number=event.searched)
            else:
                yield event_pb2.WatchEventsResponse(event=convert.event_to(event))


class AgentServicer(agent_pb2_grpc.AgentServiceServicer):
    """`agent_address` and `broker_address` are what devices are told at enrollment."""

    def __init__(
        self,
        devices: DeviceService,
        store: Store,
        tokens: RegistryTokens,
        sessions: Sessions,
        ca: CertificateAuthority,
        secrets: SecretBox,
        agent_address: str,
        broker_address: str,
    ) -> None:
        self._devices = devices
        self._store = store
        self._tokens = tokens
        self._sessions = sessions
        self._ca = ca
        self._secrets = secrets
        self._agent_address = agent_address
        self._broker_address = broker_address

    async def Enroll(self, request: agent_pb2.EnrollRequest, context: Any) -> agent_pb2.EnrollResponse:
        device, certificate = await self._devices.enroll(
            Enrollment(
                token_secret=request.token_secret,
                certificate_request=request.certificate_request,
                proposed_name=request.proposed_name,
                proposed_profile=request.proposed_profile,
                facts=request.facts.SerializeToString(),
            )
        )
        return agent_pb2.EnrollResponse(
            device_id=device.id,
            device_name=device.name,
            certificate=certificate,
            ca_certificate=self._ca.certificate_pem,
            agent_address=self._agent_address,
            broker_address=self._broker_address,
        )

    async def GetDesiredState(
        self, request: agent_pb2.GetDesiredStateRequest, context: Any
    ) -> agent_pb2.GetDesiredStateResponse:
        device_id, held = caller.get().name, request.held_generation
        if not 0 <= held < GREATEST_GENERATION:
            raise InvalidRequest("held_generation", f"{held} is no generation")

        def read(tx: Transaction) -> agent_pb2.GetDesiredStateResponse:
            device = _known(tx, device_id)
            if device.generation < held:
                # This database is older than the device's wish (it was restored): the device gets what is wished
                # now, under a number that it takes for newer.
                tx.devices.overtake(device_id, held)
                device = _known(tx, device_id)
            if device.generation == held:
                return agent_pb2.GetDesiredStateResponse()
            return agent_pb2.GetDesiredStateResponse(desired=desired_state(tx, device, self._secrets))

        answer = await self._store.transact(read)
        answer.renew_certificate = renewal_due(_certificate(context), datetime.now(UTC))
        return answer

    async def RenewCertificate(
        self, request: agent_pb2.RenewCertificateRequest, context: Any
    ) -> agent_pb2.RenewCertificateResponse:
        certificate = await self._devices.renew(caller.get().name, request.certificate_request)
        return agent_pb2.RenewCertificateResponse(certificate=certificate, ca_certificate=self._ca.certificate_pem)

    async def GetRegistryCredential(
        self, request: agent_pb2.GetRegistryCredentialRequest, context: Any
    ) -> agent_pb2.GetRegistryCredentialResponse:
        device_id = caller.get().name
        await self._store.transact(lambda tx: _known(tx, device_id))
        credential = self._tokens.credential(caller.get())
        expires = Timestamp()
        expires.FromSeconds(int(credential.expires))
        return agent_pb2.GetRegistryCredentialResponse(
            username=credential.username, password=credential.password, expires=expires
        )

    async def Channel(
        self, request_iterator: AsyncIterator[agent_pb2.ChannelRequest], context: Any
    ) -> AsyncIterator[agent_pb2.ChannelResponse]:
        device_id = caller.get().name
        await self._store.transact(lambda tx: _known(tx, device_id))
        async with contextlib.aclosing(self._sessions.serve(device_id, request_iterator)) as responses:
            async for response in responses:
                yield response

    async def Leave(self, request: agent_pb2.LeaveRequest, context: Any) -> agent_pb2.LeaveResponse:
        device_id = caller.get().name
        await self._store.transact(lambda tx: delete(tx, _known(tx, device_id)), frees=True)
        return agent_pb2.LeaveResponse()


def _certificate(context: Any) -> bytes:
    """The one by which the device calls, PEM."""
    return bytes(next(iter(context.auth_context().get("x509_pem_cert", ())), b""))


def _known(tx: Transaction, device_id: str) -> Device:
    device = tx.devices.get(device_id)
    if device is None:
        raise PermissionDenied(Reason.NO_SUCH_DEVICE, f"no device {device_id}; it has to enroll again")
    return device
