"""When a device's certificate is renewed, and that a renewal that fails costs nothing."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.pki import CertificateAuthority
from controller.pki.authority import renewal_due
from edge_agent.runtime.controller_link import ControllerUnavailable
from edge_agent.runtime.identity import Identity, IdentityMaterial, commit_identity, load_identity, prepare_folder
from edge_agent.runtime.keys import new_key, pem, signing_request
from edge_agent.runtime.renewal import Renewed, renew_when_due
from longshore.v1 import agent_pb2


@pytest.fixture
def ca(tmp_path: Path) -> CertificateAuthority:
    (tmp_path / "ca").mkdir()
    return CertificateAuthority.create(tmp_path / "ca")


def enrolled(folder: Path, ca: CertificateAuthority) -> Identity:
    key = new_key()
    certificate = ca.sign_request(signing_request(key), "dev-1").encode()
    authority = ca.certificate_pem.encode()
    material = IdentityMaterial("dev-1", "edge", "c:1", "b:1", "owner", pem(key), certificate, authority)
    return commit_identity(folder, prepare_folder(folder, pem(key)), material)


class Authority:
    """Signs, or does not answer the first `failures` times."""

    def __init__(self, ca: CertificateAuthority, failures: int = 0) -> None:
        self.renewal_due = asyncio.Event()
        self._ca = ca
        self.failures = failures

    async def renew_certificate(self, certificate_request: str) -> agent_pb2.RenewCertificateResponse:
        if self.failures:
            self.failures -= 1
            raise ControllerUnavailable("nobody answers")
        certificate = self._ca.sign_request(certificate_request, "dev-1")
        return agent_pb2.RenewCertificateResponse(certificate=certificate, ca_certificate=self._ca.certificate_pem)


@pytest.mark.parametrize(("days", "due"), [(0, False), (59, False), (61, True), (90, True), (91, True)])
def test_a_certificate_is_renewed_after_two_thirds_of_its_life(ca: CertificateAuthority, days: int, due: bool) -> None:
    certificate = ca.sign_request(signing_request(new_key()), "dev-1", timedelta(days=90))
    assert renewal_due(certificate.encode(), datetime.now(UTC) + timedelta(days=days)) is due


def test_what_is_no_certificate_is_to_be_replaced() -> None:
    assert renewal_due(b"", datetime.now(UTC))


async def test_a_new_identity_takes_the_place_of_the_old_one_whole(tmp_path: Path, ca: CertificateAuthority) -> None:
    state, authority = tmp_path / "state", Authority(ca)
    before = enrolled(state, ca)
    old_key = before.key_file.read_bytes()
    authority.renewal_due.set()
    with pytest.raises(Renewed):
        await renew_when_due(state, before, authority)
    after = load_identity(state)
    assert (after.device_id, after.device_name, after.owner) == (before.device_id, before.device_name, before.owner)
    assert after.key_file.read_bytes() != old_key
    assert not before.key_file.exists()


async def test_a_controller_that_does_not_answer_is_asked_again_and_the_old_identity_holds(
    tmp_path: Path, ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.runtime.renewal.RETRY_FIRST", 0.01)
    state, authority = tmp_path / "state", Authority(ca, failures=2)
    before = enrolled(state, ca)
    task = asyncio.create_task(renew_when_due(state, before, authority))
    authority.renewal_due.set()
    while authority.failures:
        assert load_identity(state) == before
        await asyncio.sleep(0.001)
    with pytest.raises(Renewed):
        await task
    assert len(list(state.glob("identity-*"))) == 1
