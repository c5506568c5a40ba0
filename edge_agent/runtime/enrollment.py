"""Making this machine a device: a key that never leaves it, a certificate for it, and the addresses to call.

Only the `enroll` command imports this: nothing of it stays in the memory of a running agent.
"""

import asyncio
import base64
import binascii
import hashlib
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.protobuf.message import DecodeError

from edge_agent.runtime.addresses import parse_address
from edge_agent.runtime.controller_link import CHANNEL_OPTIONS, TRANSIENT, describe
from edge_agent.runtime.dates import doubt
from edge_agent.runtime.facts import likely_profile
from edge_agent.runtime.identity import (
    KEY_NAME,
    Identity,
    IdentityMaterial,
    InvalidIdentity,
    NotEnrolled,
    begun_folder,
    commit_identity,
    is_enrolled,
    load_identity,
    prepare_folder,
    state_lock,
)
from edge_agent.runtime.keys import Key, new_key, pem, read_key, signing_request
from edge_agent.runtime.settings import AgentSettings
from longshore.v1 import agent_pb2, agent_pb2_grpc, device_pb2

DEADLINE = 30.0


class EnrollmentFailed(Exception):
    """The machine did not become a device; the text says why and what to do."""


class EnrollmentRefused(EnrollmentFailed):
    """The controller has said no. Without its word nobody knows: it may have made a device, and its answer was lost."""


@dataclass(frozen=True)
class EnrollmentRequest:
    """`name` and `profile` are proposals, used where the token names none."""

    token: str
    facts: device_pb2.DeviceFacts
    name: str = ""
    profile: str = ""
    # Host:port under which this machine reaches the controller, where that differs from what the token says.
    controller_address: str = ""
    force: bool = False


async def enroll(state_dir: Path, request: EnrollmentRequest) -> Identity:
    """Afterwards the state folder holds a whole identity, durably.

    Raises EnrollmentFailed; what the folder held before holds on. As long as it is not known what has become of it, the
    next call with the same token goes on with the same key, so that the controller makes no second device.
    AlreadyRunning while an agent uses the folder.
    """
    token = parse_token(request.token)
    _check_address(request.controller_address or token.controller_address)
    _refuse_enrolled(state_dir, request.force)
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with state_lock(state_dir):
        owner = _present_owner(state_dir)
        folder, key = _begin(state_dir, token)
        try:
            response = await _call(token, request, signing_request(key))
            _forget_previous(state_dir)
            identity = commit_identity(state_dir, folder, _material(response, pem(key), owner))
        except EnrollmentRefused:
            # Those of other tokens stay: what has become of them is not known yet.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return identity


def _begin(state_dir: Path, token: device_pb2.JoinToken) -> tuple[Path, Key]:
    """A folder for the identity with its key: those of an earlier call with this token, if there are any."""
    attempt = hashlib.sha256(token.secret.encode()).hexdigest()
    if (folder := begun_folder(state_dir, attempt)) is not None:
        known = read_key((folder / KEY_NAME).read_bytes())
        if known is not None:
            return folder, known
    key = new_key()
    return prepare_folder(state_dir, pem(key), attempt), key


def parse_token(text: str) -> device_pb2.JoinToken:
    """What an enroll token says. Raises EnrollmentFailed for a text that is none."""
    try:
        raw = base64.urlsafe_b64decode(text.strip() + "=" * (-len(text.strip()) % 4))
        token = device_pb2.JoinToken.FromString(raw)
    except (binascii.Error, ValueError, DecodeError):
        token = device_pb2.JoinToken()
    if not (token.controller_address and token.ca_certificate and token.secret):
        raise EnrollmentFailed("this is not an enroll token; copy all of what `longshore enroll-token` prints")
    return token


def _refuse_enrolled(state_dir: Path, force: bool) -> None:
    if is_enrolled(state_dir) and not force:
        name = load_identity(state_dir).device_name
        raise EnrollmentFailed(
            f"{state_dir} is enrolled as {name}; --force makes it another device and forgets the old one"
        )


def _forget_previous(state_dir: Path) -> None:
    """The database belongs to the device before: its generations and its journal mean nothing to a new one."""
    file = AgentSettings(state_dir=state_dir).database_file
    for path in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        path.unlink(missing_ok=True)


async def _call(
    token: device_pb2.JoinToken, request: EnrollmentRequest, signing_request: str
) -> agent_pb2.EnrollResponse:
    address = request.controller_address or token.controller_address
    credentials = grpc.ssl_channel_credentials(root_certificates=token.ca_certificate.encode())
    async with grpc.aio.secure_channel(address, credentials, options=CHANNEL_OPTIONS) as channel:
        message = agent_pb2.EnrollRequest(
            token_secret=token.secret,
            certificate_request=signing_request,
            proposed_name=request.name or socket.gethostname(),
            proposed_profile=request.profile or likely_profile(request.facts),
            facts=request.facts,
        )
        try:
            return await agent_pb2_grpc.AgentServiceStub(channel).Enroll(message, timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            failure = EnrollmentFailed if error.code() in TRANSIENT else EnrollmentRefused
            raise failure(_explain(error, address)) from error


def _check_address(address: str) -> None:
    try:
        parse_address(address)
    except ValueError as error:
        raise EnrollmentFailed(str(error)) from None


def _explain(error: grpc.aio.AioRpcError, address: str) -> str:
    if dates := doubt(f"the controller at {address}", error.details() or ""):
        return dates
    match error.code():
        case grpc.StatusCode.UNAUTHENTICATED:
            return f"{address} refuses the token: {error.details()}; ask for a new one (`longshore enroll-token`)"
        case grpc.StatusCode.ALREADY_EXISTS:
            return f"{error.details()}; choose another name with --name, or ask for a token with one"
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"cannot reach the controller at {address}: {describe(error)}; try the same token again"
        case code if code in TRANSIENT:
            return f"{address} cannot enroll this machine now: {describe(error)}; try the same token again"
        case _:
            return f"{address} refuses: {describe(error)}"


def _present_owner(state_dir: Path) -> str:
    """Under which mark this machine runs things already: a new device must be able to stop what the old one ran."""
    try:
        return load_identity(state_dir).owner
    except (NotEnrolled, InvalidIdentity):
        return ""


def _material(response: agent_pb2.EnrollResponse, key: bytes, owner: str) -> IdentityMaterial:
    if not (response.device_id and response.certificate and response.agent_address and response.broker_address):
        raise EnrollmentFailed("the controller's answer is not complete; is it of another version?")
    for address in (response.agent_address, response.broker_address):
        _check_address(address)
    return IdentityMaterial(
        device_id=response.device_id,
        device_name=response.device_name,
        agent_address=response.agent_address,
        broker_address=response.broker_address,
        owner=owner or response.device_id,
        key=key,
        certificate=response.certificate.encode(),
        ca=response.ca_certificate.encode(),
    )


def enroll_blocking(state_dir: Path, request: EnrollmentRequest) -> Identity:
    """`enroll` for a command line."""
    return asyncio.run(enroll(state_dir, request))
