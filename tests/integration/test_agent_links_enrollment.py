"""A machine becomes a device: key, token, certificate, and what is said when it does not work."""

import asyncio
import base64
import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from controller.local.broker import LocalBroker
from controller.pki import CertificateAuthority
from edge_agent.runtime.enrollment import EnrollmentFailed, EnrollmentRequest, enroll, parse_token
from edge_agent.runtime.facts import device_facts
from edge_agent.runtime.identity import AlreadyRunning, NotEnrolled, load_identity, state_lock
from tests.support.agent_controller import AgentController, make_authority

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ca(tmp_path: Path) -> CertificateAuthority:
    return make_authority(tmp_path / "ca")


@pytest.fixture
async def controller(ca: CertificateAuthority, tmp_path: Path) -> AsyncIterator[AgentController]:
    # Enrolling only needs the broker's address.
    async with AgentController(ca, LocalBroker(tmp_path / "broker", ca)) as running:
        yield running


def request(token: str, *, name: str = "crane-7", force: bool = False) -> EnrollmentRequest:
    return EnrollmentRequest(token=token, facts=device_facts("test"), name=name, profile="x86-cpu", force=force)


async def test_enrolling_gives_an_identity_whose_key_never_left_the_machine(
    controller: AgentController, tmp_path: Path
) -> None:
    identity = await enroll(tmp_path / "state", request(controller.token()))

    assert load_identity(tmp_path / "state") == identity
    assert identity.device_name == "crane-7"
    assert identity.agent_address == controller.agent_address
    certificate = x509.load_pem_x509_certificate(identity.certificate_file.read_bytes())
    key = serialization.load_pem_private_key(identity.key_file.read_bytes(), None)
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rfc4514_string() == f"CN={identity.device_id}"
    assert stat.S_IMODE(identity.key_file.stat().st_mode) == 0o600
    (sent,) = controller.requests
    assert b"PRIVATE" not in sent.SerializeToString()
    assert sent.proposed_profile == "x86-cpu"
    assert sent.facts.memory_bytes > 0


async def test_a_spent_token_is_refused_with_what_to_do_and_leaves_nothing(
    controller: AgentController, tmp_path: Path
) -> None:
    token = controller.token()
    await enroll(tmp_path / "first", request(token))
    with pytest.raises(EnrollmentFailed, match=r"unknown, spent or expired.*longshore enroll-token"):
        await enroll(tmp_path / "second", request(token))
    assert [path.name for path in (tmp_path / "second").iterdir()] == ["agent.lock"]


async def test_an_answer_that_was_lost_leaves_one_device(controller: AgentController, tmp_path: Path) -> None:
    token = controller.token()
    controller.lose_answers = 2
    for _ in range(2):
        with pytest.raises(EnrollmentFailed, match="try the same token again"):
            await enroll(tmp_path / "state", request(token))
    with pytest.raises(NotEnrolled):
        load_identity(tmp_path / "state")
    identity = await enroll(tmp_path / "state", request(token))
    assert identity.device_id == "device-1"
    certificate = x509.load_pem_x509_certificate(identity.certificate_file.read_bytes())
    key = serialization.load_pem_private_key(identity.key_file.read_bytes(), None)
    assert certificate.public_key() == key.public_key()
    with pytest.raises(EnrollmentFailed, match="unknown, spent or expired"):
        await enroll(tmp_path / "other", request(token))


async def test_another_token_begins_anew_after_an_answer_that_was_lost(
    controller: AgentController, tmp_path: Path
) -> None:
    controller.lose_answers = 1
    with pytest.raises(EnrollmentFailed):
        await enroll(tmp_path, request(controller.token("a")))
    identity = await enroll(tmp_path, request(controller.token("b")))
    assert identity.device_id == "device-2"
    assert [folder.name for folder in tmp_path.glob("identity-*/")] == [identity.key_file.parent.name]


async def test_token_that_is_refused_in_between_leaves_what_another_has_begun(
    controller: AgentController, tmp_path: Path
) -> None:
    token = controller.token("a")
    controller.lose_answers, controller.lost_as = 1, grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(EnrollmentFailed, match=r"cannot enroll this machine now.*try the same token again"):
        await enroll(tmp_path, request(token))
    spent = controller.token("b")
    controller.tokens.discard("b")
    with pytest.raises(EnrollmentFailed, match="unknown, spent or expired"):
        await enroll(tmp_path, request(spent))
    assert len(list(tmp_path.glob("identity-*/"))) == 1
    assert (await enroll(tmp_path, request(token))).device_id == "device-1"


async def test_a_taken_name_is_refused_with_what_to_do(controller: AgentController, tmp_path: Path) -> None:
    controller.taken_names.add("crane-7")
    with pytest.raises(EnrollmentFailed, match=r"crane-7.*--name"):
        await enroll(tmp_path / "state", request(controller.token()))


async def test_a_controller_that_is_away_is_named(controller: AgentController, tmp_path: Path) -> None:
    token = controller.token()
    await controller.stop()
    with pytest.raises(EnrollmentFailed, match=f"cannot reach the controller at {controller.address}"):
        await enroll(tmp_path / "state", request(token))


async def test_a_controller_of_another_ca_is_not_told_the_secret(controller: AgentController, tmp_path: Path) -> None:
    other = make_authority(tmp_path / "other-ca")
    token = parse_token(controller.token())
    token.ca_certificate = other.certificate_pem
    with pytest.raises(EnrollmentFailed, match="cannot reach the controller"):
        await enroll(tmp_path / "state", request(_encoded(token.SerializeToString())))
    assert controller.requests == []


async def test_an_enrolled_machine_stays_what_it_is_unless_forced(controller: AgentController, tmp_path: Path) -> None:
    first = await enroll(tmp_path, request(controller.token("a")))
    with pytest.raises(EnrollmentFailed, match=r"enrolled as crane-7; --force"):
        await enroll(tmp_path, request(controller.token("b"), name="crane-8"))
    assert load_identity(tmp_path) == first
    assert len(controller.requests) == 1


async def test_forced_the_machine_becomes_another_device_and_can_still_stop_what_it_ran(
    controller: AgentController, tmp_path: Path
) -> None:
    first = await enroll(tmp_path, request(controller.token("a")))
    (tmp_path / "agent.db").write_text("desired state of the first device")
    second = await enroll(tmp_path, request(controller.token("b"), name="crane-8", force=True))
    assert load_identity(tmp_path) == second
    assert second.device_id != first.device_id
    assert second.owner == first.owner == first.device_id
    assert not (tmp_path / "agent.db").exists()
    assert not first.key_file.exists()


async def test_a_failed_forced_enrollment_leaves_the_device_as_it_was(
    controller: AgentController, tmp_path: Path
) -> None:
    first = await enroll(tmp_path, request(controller.token("a")))
    (tmp_path / "agent.db").write_text("desired state of the first device")
    before = sorted(path.name for path in tmp_path.iterdir())
    token = controller.token("b")
    controller.tokens.clear()
    with pytest.raises(EnrollmentFailed):
        await enroll(tmp_path, request(token, force=True))
    assert load_identity(tmp_path) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == before


async def test_a_running_agent_is_not_enrolled_away_under_its_feet(controller: AgentController, tmp_path: Path) -> None:
    await enroll(tmp_path, request(controller.token("a")))
    with state_lock(tmp_path), pytest.raises(AlreadyRunning):
        await enroll(tmp_path, request(controller.token("b"), force=True))
    assert len(controller.requests) == 1


@pytest.mark.parametrize("instant", range(1, 18))
async def test_a_crash_at_any_write_leaves_nothing_usable_or_a_whole_identity(
    controller: AgentController, tmp_path: Path, instant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process vanishes at the n-th time that something becomes visible on the disk."""
    state, token = tmp_path / "state", controller.token()
    count = 0

    class PowerCut(BaseException):
        pass

    def vanish_at_instant(function: object) -> object:
        def wrapper(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count >= instant:
                raise PowerCut
            assert callable(function)
            return function(*arguments, **options)

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", vanish_at_instant(Path.replace))
        patch.setattr("os.fsync", vanish_at_instant(os.fsync))
        # After a crash nobody cleans up.
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with contextlib.suppress(PowerCut):
            await enroll(state, request(token))

    try:
        identity = load_identity(state)
    except NotEnrolled:
        # The same token, which may be spent.
        identity = await enroll(state, request(token))
    assert len(set(controller.spent.values())) == 1
    assert identity.certificate_file.read_bytes().startswith(b"-----BEGIN CERTIFICATE")
    assert identity.key_file.read_bytes().startswith(b"-----BEGIN PRIVATE KEY")


@pytest.mark.parametrize("token", ["", "no token at all", "aGVsbG8", "ä"])
def test_what_is_no_token_is_refused_in_words(token: str) -> None:
    with pytest.raises(EnrollmentFailed, match="not an enroll token"):
        parse_token(token)


async def test_the_command_enrolls_once_and_says_no_in_one_line(controller: AgentController, tmp_path: Path) -> None:
    first = await _command("enroll", controller.token("a"), "--state-dir", str(tmp_path / "s"), "--name", "crane-9")
    assert first.returncode == 0, first.stderr
    assert first.stdout == "enrolled as crane-9 (device-1)\n"
    again = await _command("enroll", controller.token("b"), "--state-dir", str(tmp_path / "s"))
    assert again.returncode == 1
    assert again.stderr.startswith("longshore-edge-agent: ")
    assert len(again.stderr.splitlines()) == 1
    status = await _command("status", "--state-dir", str(tmp_path / "s"))
    assert "crane-9 (device-1)" in status.stdout
    assert "not running" in status.stdout
    assert "nothing was fetched yet" in status.stdout


@pytest.mark.parametrize("command", ["run", "status"])
def test_a_machine_that_is_not_enrolled_is_told_so_without_a_traceback(tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent.main", command, "--state-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (f"longshore-edge-agent: {tmp_path} holds no identity; run `enroll TOKEN` first\n")


async def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "edge_agent.main", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()
