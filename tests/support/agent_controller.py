"""What an agent talks to, for tests of its links: a real gRPC server with mutual TLS whose answers the test decides."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from controller.local.broker import LocalBroker
from controller.pki import CertificateAuthority
from controller.pki.authority import key_hash
from longshore.v1 import agent_pb2, agent_pb2_grpc, device_pb2, types_pb2

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class Session:
    """A channel as the controller sees it."""

    received: list[agent_pb2.ChannelRequest] = field(default_factory=list)
    # What the agent is told, in order.
    said: asyncio.Queue[agent_pb2.ChannelResponse] = field(default_factory=asyncio.Queue)
    close: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def lines(self) -> list[types_pb2.LogLine]:
        return [message.log_line for message in self.received if message.HasField("log_line")]

    @property
    def output(self) -> bytes:
        return b"".join(message.data.data for message in self.received)

    @property
    def taken(self) -> int:
        """Messages of input that were told to be taken."""
        return sum(message.taken.messages for message in self.received)

    @property
    def last(self) -> agent_pb2.ChannelRequest:
        return self.received[-1] if self.received else agent_pb2.ChannelRequest()

    def give(self, data: bytes = b"", *, end: bool = False) -> None:
        self.said.put_nowait(agent_pb2.ChannelResponse(data=agent_pb2.ChannelData(data=data, end=end)))

    @property
    def whole(self) -> bool:
        """Whether the agent has said that this was all."""
        return bool(self.received) and self.received[-1].HasField("end")


class AgentController(agent_pb2_grpc.AgentServiceServicer):
    """`async with AgentController(...)`; stopped and started again it keeps its ports and what it knows."""

    def __init__(self, ca: CertificateAuthority, broker: LocalBroker) -> None:
        self.ca = ca
        self._broker = broker
        self._server: grpc.aio.Server | None = None
        self._public_port = 0
        self._agent_port = 0
        self.tokens: set[str] = set()
        # (secret, key) -> device id: as the controller, it makes the same device of both again.
        self.spent: dict[tuple[str, str], str] = {}
        # So many enrollments are done, and not answered.
        self.lose_answers = 0
        self.lost_as = grpc.StatusCode.UNAVAILABLE
        self.left: list[str] = []
        self.taken_names: set[str] = set()
        self.requests: list[agent_pb2.EnrollRequest] = []
        self.desired: dict[str, agent_pb2.DesiredState] = {}
        # (device id, generation that it held), call after call.
        self.fetches: list[tuple[str, int]] = []
        # Devices whose certificate is to be renewed.
        self.renewals_due: set[str] = set()
        self.credentials_given = 0
        self.credential_life = 300.0
        self.sessions: dict[str, Session] = {}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._public_port}"

    @property
    def agent_address(self) -> str:
        return f"127.0.0.1:{self._agent_port}"

    async def start(self) -> None:
        pair = self.ca.issue_server(["127.0.0.1", "localhost"])
        keys = [(pair.key_pem.encode(), pair.certificate_pem.encode())]
        root = self.ca.certificate_pem.encode()
        self._server = grpc.aio.server()
        agent_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)
        self._public_port = self._server.add_secure_port(
            f"127.0.0.1:{self._public_port}", grpc.ssl_server_credentials(keys)
        )
        self._agent_port = self._server.add_secure_port(
            f"127.0.0.1:{self._agent_port}", grpc.ssl_server_credentials(keys, root, require_client_auth=True)
        )
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    async def __aenter__(self) -> "AgentController":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def token(self, secret: str = "once") -> str:
        """An enroll token that is good for one device."""
        self.tokens.add(secret)
        message = device_pb2.JoinToken(
            controller_address=self.address, ca_certificate=self.ca.certificate_pem, secret=secret
        )
        return base64.urlsafe_b64encode(message.SerializeToString()).decode().rstrip("=")

    def wish(self, device_id: str, workloads: Sequence[agent_pb2.DesiredWorkload] = ()) -> int:
        """Makes a new generation of a device's desired state; its number. Nobody is told."""
        generation = self.desired[device_id].generation + 1 if device_id in self.desired else 1
        self.desired[device_id] = agent_pb2.DesiredState(
            device_id=device_id, generation=generation, workloads=workloads
        )
        return generation

    async def Enroll(self, request: agent_pb2.EnrollRequest, context: Context) -> agent_pb2.EnrollResponse:
        self.requests.append(request)
        spent_by = self.spent.get((request.token_secret, key_hash(request.certificate_request)))
        if spent_by is None and request.token_secret not in self.tokens:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the enroll token is unknown, spent or expired")
        if request.proposed_name in self.taken_names:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, f"a device named {request.proposed_name} exists")
        self.tokens.discard(request.token_secret)
        device_id = spent_by or f"device-{len(self.requests)}"
        self.spent[request.token_secret, key_hash(request.certificate_request)] = device_id
        if self.lose_answers:
            self.lose_answers -= 1
            await context.abort(self.lost_as, "the connection broke")
        return agent_pb2.EnrollResponse(
            device_id=device_id,
            device_name=request.proposed_name,
            certificate=self.ca.sign_request(request.certificate_request, device_id),
            ca_certificate=self.ca.certificate_pem,
            agent_address=self.agent_address,
            broker_address=self._broker.address,
        )

    async def RenewCertificate(
        self, request: agent_pb2.RenewCertificateRequest, context: Context
    ) -> agent_pb2.RenewCertificateResponse:
        device_id = await _caller(context)
        self.renewals_due.discard(device_id)
        certificate = self.ca.sign_request(request.certificate_request, device_id)
        return agent_pb2.RenewCertificateResponse(certificate=certificate, ca_certificate=self.ca.certificate_pem)

    async def GetDesiredState(
        self, request: agent_pb2.GetDesiredStateRequest, context: Context
    ) -> agent_pb2.GetDesiredStateResponse:
        device_id = await _caller(context)
        self.fetches.append((device_id, request.held_generation))
        desired = self.desired.get(device_id)
        answer = agent_pb2.GetDesiredStateResponse(renew_certificate=device_id in self.renewals_due)
        if desired is not None and desired.generation > request.held_generation:
            answer.desired.CopyFrom(desired)
        return answer

    async def GetRegistryCredential(
        self, request: agent_pb2.GetRegistryCredentialRequest, context: Context
    ) -> agent_pb2.GetRegistryCredentialResponse:
        device_id = await _caller(context)
        self.credentials_given += 1
        response = agent_pb2.GetRegistryCredentialResponse(username=device_id, password=f"p{self.credentials_given}")
        response.expires.FromNanoseconds(int((time.time() + self.credential_life) * 1e9))
        return response

    async def Leave(self, request: agent_pb2.LeaveRequest, context: Context) -> agent_pb2.LeaveResponse:
        self.left.append(await _caller(context))
        return agent_pb2.LeaveResponse()

    async def Channel(
        self, request_iterator: AsyncIterator[agent_pb2.ChannelRequest], context: Context
    ) -> AsyncIterator[agent_pb2.ChannelResponse]:
        await _caller(context)
        first = await anext(request_iterator)
        session = self.sessions.get(first.session_id)
        if session is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no session {first.session_id}")
        reading = asyncio.create_task(_read(request_iterator, session))
        closing = asyncio.create_task(session.close.wait())
        try:
            while not (reading.done() or closing.done()):
                saying = asyncio.create_task(session.said.get())
                await asyncio.wait({reading, closing, saying}, return_when=asyncio.FIRST_COMPLETED)
                saying.cancel()
                if saying.done():
                    yield saying.result()
        finally:
            reading.cancel()
            closing.cancel()
            await asyncio.gather(reading, closing, return_exceptions=True)
            session.ended.set()


async def _read(requests: AsyncIterator[agent_pb2.ChannelRequest], session: Session) -> None:
    async for request in requests:
        session.received.append(request)


async def _caller(context: Context) -> str:
    """The device that the certificate names."""
    names = context.auth_context().get("x509_common_name", [])
    if not names:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a client certificate is needed")
    return bytes(next(iter(names))).decode()


def make_authority(folder: Path) -> CertificateAuthority:
    folder.mkdir()
    return CertificateAuthority.create(folder)
