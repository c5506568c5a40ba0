"""The agent's calls to the controller: gRPC with mutual TLS. Each has a deadline and fails with one of two errors."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import grpc

from edge_agent.runtime.dates import doubt
from edge_agent.runtime.identity import Identity
from longshore.v1 import agent_pb2, agent_pb2_grpc
from longshore.v1.agent_pb2 import ChannelRequest, ChannelResponse, DesiredState

DEADLINE = 15.0
# A channel is a person's session: it may last, but not for ever on a connection that died silently.
CHANNEL_DEADLINE = 24 * 3600.0
MAX_MESSAGE = 16 * 2**20

# A connection that nobody has used for so long is closed, and with it end gRPC's threads, which wake several times a
# second: a quiet device talks to the broker alone. The next call connects again, in a few milliseconds.
IDLE_SECONDS = 20.0

# Pings only while a call is open, and never below 30 s: servers cut off clients that ping more often than they allow.
# The connection to the controller is direct; a proxy of the environment is for other clients.
CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 15_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.enable_http_proxy", 0),
    # Its polling would cost more than it saves: nobody asks these statistics.
    ("grpc.enable_channelz", 0),
]

# Worth another try later; everything else means that the controller understood and says no.
TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)

Channel = grpc.aio.StreamStreamCall[ChannelRequest, ChannelResponse]


class ControllerError(Exception):
    """A call to the controller failed; the text is for people."""


class ControllerUnavailable(ControllerError):
    """The controller does not answer, or cannot now; worth another try."""


class ControllerRefused(ControllerError):
    """The controller answered no; the same call will fail again until something changes there. `code` is gRPC's."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Credential:
    """For the registry's token endpoint."""

    username: str
    password: str


def describe(error: grpc.aio.AioRpcError) -> str:
    """What a failed call says, for people."""
    return f"{error.details() or 'no details'} ({error.code().name})"


class ControllerLink:
    """One connection to the controller's agent port: made for the first call, kept while it is used."""

    def __init__(self, identity: Identity, idle_seconds: float = IDLE_SECONDS) -> None:
        self._address = identity.agent_address
        self._identity = identity
        self._idle_seconds = idle_seconds
        self._channel: grpc.aio.Channel | None = None
        self._calls = 0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        # Set by the controller's answer: the certificate is to be renewed.
        self.renewal_due = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a connection is kept, or being made."""
        return self._channel is not None

    async def get_desired(self, held_generation: int) -> DesiredState | None:
        """The newest desired state, or None where that is the one which is held. Raises ControllerError."""
        request = agent_pb2.GetDesiredStateRequest(held_generation=held_generation)
        with self._stub() as stub:
            try:
                response = await stub.GetDesiredState(request, timeout=DEADLINE)
            except grpc.aio.AioRpcError as error:
                raise self._error(error) from error
        if response.renew_certificate:
            self.renewal_due.set()
        return response.desired if response.HasField("desired") else None

    async def renew_certificate(self, certificate_request: str) -> agent_pb2.RenewCertificateResponse:
        """A new certificate for the key of this request (PKCS#10 in PEM). Raises ControllerError."""
        request = agent_pb2.RenewCertificateRequest(certificate_request=certificate_request)
        with self._stub() as stub:
            try:
                return await stub.RenewCertificate(request, timeout=DEADLINE)
            except grpc.aio.AioRpcError as error:
                raise self._error(error) from error

    async def registry_credential(self) -> Credential:
        """A new credential. None is kept: each fetch has its whole life before it, whatever the device's clock says of
        that, and one that the registry has refused is never shown again. Raises ControllerError.
        """
        request = agent_pb2.GetRegistryCredentialRequest()
        with self._stub() as stub:
            try:
                response = await stub.GetRegistryCredential(request, timeout=DEADLINE)
            except grpc.aio.AioRpcError as error:
                raise self._error(error) from error
        return Credential(response.username, response.password)

    async def leave(self) -> None:
        """Afterwards the controller knows that this device is none any more. Raises ControllerError."""
        with self._stub() as stub:
            try:
                await stub.Leave(agent_pb2.LeaveRequest(), timeout=DEADLINE)
            except grpc.aio.AioRpcError as error:
                raise self._error(error) from error

    @asynccontextmanager
    async def channel(self, session_id: str) -> AsyncIterator[Channel]:
        """An open session: its first message, which names it, has been sent. Ended when the block is left.

        Raises ControllerError, also out of the block for errors of the stream.
        """
        with self._stub() as stub:
            # The stubs know only the other form, with an iterator of requests.
            call = stub.Channel(timeout=CHANNEL_DEADLINE)  # type: ignore[call-arg]
            try:
                await call.write(ChannelRequest(session_id=session_id))
                yield call
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.INTERNAL:
                    # What grpc.aio makes of a message that was being sent when the other side ended the stream, for
                    # whatever reason: the reason itself is lost.
                    raise ControllerUnavailable(f"controller at {self._address} has ended the session") from error
                raise self._error(error) from error
            finally:
                call.cancel()

    async def close(self) -> None:
        """Open calls are cancelled."""
        self._forget_timer()
        if self._closing is not None:
            await self._closing
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close(grace=None)

    @contextmanager
    def _stub(self) -> Iterator[agent_pb2_grpc.AgentServiceStub]:
        """The connection is kept while the block lasts, and for `idle_seconds` more."""
        self._forget_timer()
        if self._channel is None:
            self._channel = self._connect()
        self._calls += 1
        try:
            yield agent_pb2_grpc.AgentServiceStub(self._channel)
        finally:
            self._calls -= 1
            if self._calls == 0:
                self._idle_timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._rest)

    def _connect(self) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=self._identity.ca_file.read_bytes(),
            private_key=self._identity.key_file.read_bytes(),
            certificate_chain=self._identity.certificate_file.read_bytes(),
        )
        return grpc.aio.secure_channel(self._address, credentials, options=CHANNEL_OPTIONS)

    def _rest(self) -> None:
        self._idle_timer = None
        if self._channel is not None and self._calls == 0:
            channel, self._channel = self._channel, None
            self._closing = asyncio.create_task(channel.close(grace=None))

    def _forget_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _error(self, error: grpc.aio.AioRpcError) -> ControllerError:
        if dates := doubt(f"the controller at {self._address}", error.details() or ""):
            return ControllerUnavailable(dates)
        if error.code() in TRANSIENT:
            return ControllerUnavailable(f"controller at {self._address} does not answer: {describe(error)}")
        return ControllerRefused(f"controller at {self._address} refuses: {describe(error)}", error.code().name)
