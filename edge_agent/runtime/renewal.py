"""Renewing the device's certificate: when the controller says that it is time, whatever this machine's clock says.

What this imports is needed once in months, so it is imported then.
"""

import asyncio
from pathlib import Path
from typing import Protocol

import structlog

from edge_agent.runtime.backoff import Backoff
from edge_agent.runtime.controller_link import ControllerError
from edge_agent.runtime.identity import Identity, IdentityMaterial, commit_identity, discard_leftovers, prepare_folder
from longshore.v1 import agent_pb2

log = structlog.get_logger()

RETRY_FIRST = 60.0
RETRY_CAP = 6 * 3600.0


class Renewed(Exception):
    """The device has a new certificate: connections are to be made anew with it. What runs is not touched."""


class Authority(Protocol):
    renewal_due: asyncio.Event

    async def renew_certificate(self, certificate_request: str) -> agent_pb2.RenewCertificateResponse: ...


async def renew_when_due(state_dir: Path, identity: Identity, authority: Authority) -> None:
    """Waits until it is time, and ends by raising Renewed. Until all of the new identity is on the disk the old one
    holds; a call that fails is tried again later."""
    backoff = Backoff(RETRY_FIRST, RETRY_CAP)
    while True:
        await authority.renewal_due.wait()
        try:
            await _renew(state_dir, identity, authority)
        except (ControllerError, OSError) as error:
            log.warning("certificate_not_renewed", error=str(error))
            authority.renewal_due.clear()
            await asyncio.sleep(backoff.next())
            authority.renewal_due.set()
        else:
            log.info("certificate_renewed", device=identity.device_id)
            raise Renewed


async def _renew(state_dir: Path, identity: Identity, authority: Authority) -> None:
    from edge_agent.runtime.keys import new_key, pem, signing_request

    key = new_key()
    folder = prepare_folder(state_dir, pem(key))
    try:
        answer = await authority.renew_certificate(signing_request(key))
        if not (answer.certificate and answer.ca_certificate):
            raise ControllerError("the controller's answer is not complete; is it of another version?")
        commit_identity(state_dir, folder, _material(identity, pem(key), answer))
    except BaseException:
        discard_leftovers(state_dir)
        raise


def _material(identity: Identity, key: bytes, answer: agent_pb2.RenewCertificateResponse) -> IdentityMaterial:
    return IdentityMaterial(
        device_id=identity.device_id,
        device_name=identity.device_name,
        agent_address=identity.agent_address,
        broker_address=identity.broker_address,
        owner=identity.owner,
        key=key,
        certificate=answer.certificate.encode(),
        ca=answer.ca_certificate.encode(),
    )
