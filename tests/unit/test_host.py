"""The agent as a part of its machine: its unit, and what a doctor says."""

import json
import os
from pathlib import Path

import pytest

from baremetal_agent.main import KIND as BAREMETAL_AGENT
from controller.pki import CertificateAuthority
from edge_agent.errors import UserError
from edge_agent.host import doctor, service
from edge_agent.host.findings import Finding, Level, as_json, as_text, healthy, ok, problem, warning
from edge_agent.host.unit import AgentKind, unit_text
from edge_agent.main import KIND as EDGE_AGENT
from edge_agent.podman.doctor import _accelerators
from edge_agent.runtime.identity import IdentityMaterial, commit_identity, prepare_folder

ROOT = Path(__file__).resolve().parents[2]
MOUNTS = "/dev/vda / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\ntmpfs /run/user tmpfs rw 0 0\n/dev/vdb /data xfs rw 0 0\n"


def levels(findings: list[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


@pytest.mark.parametrize("kind", [EDGE_AGENT, BAREMETAL_AGENT], ids=lambda kind: kind.program)
def test_shipped_unit_is_what_an_installation_writes(kind: AgentKind) -> None:
    text = unit_text(kind, Path("/opt/longshore/bin", kind.program), kind.state_dir)
    assert (ROOT / "deploy" / kind.unit).read_text() == text


def test_a_folder_with_a_blank_in_its_name_is_one_word_of_the_unit() -> None:
    assert '--state-dir "/var/my agent"\n' in unit_text(EDGE_AGENT, Path("/p"), Path("/var/my agent"))


def test_without_systemd_an_installation_says_what_to_do_instead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_args, **_kwargs: None)
    with pytest.raises(UserError, match="systemd does not run this machine; start `run` by what does"):
        service.install(EDGE_AGENT, tmp_path)
    assert service.state(EDGE_AGENT) == "not installed"


def test_findings_are_told_to_people_and_to_programs() -> None:
    found = [ok("fine"), warning("odd", "look"), problem("broken", "mend it")]
    assert as_text(found).splitlines() == [
        "ok       fine", "warning  odd", "         -> look", "problem  broken", "         -> mend it",
    ]  # fmt: skip
    assert json.loads(as_json(found))[2] == {"level": "problem", "what": "broken", "mend": "mend it"}
    assert (healthy(found), healthy(found[:2])) == (False, True)


@pytest.mark.parametrize(("path", "kind"), [("/var/lib", "ext4"), ("/run/user/1", "tmpfs"), ("/data", "xfs")])
def test_the_file_system_of_a_folder_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert doctor.file_system(Path(path), MOUNTS) == kind


def test_a_clock_that_was_lost_with_the_power_is_a_problem() -> None:
    assert levels(list(doctor._clock(0.0))) == [Level.PROBLEM]
    assert levels(list(doctor._clock(doctor.NOT_BEFORE + 1))) == [Level.OK]


def test_a_state_folder_that_others_can_read_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert f"chmod 700 {tmp_path}" in [finding.mend for finding in doctor._state_folder(tmp_path)]


def test_a_machine_that_is_no_device_and_one_with_a_damaged_identity_are_told_apart(tmp_path: Path) -> None:
    assert levels(list(doctor._identity(tmp_path))) == [Level.WARNING]
    (tmp_path / "identity.json").write_text("{")
    assert levels(list(doctor._identity(tmp_path))) == [Level.PROBLEM]


@pytest.mark.parametrize("damaged", ["device.key", "device.crt", "ca.crt"])
def test_an_identity_of_which_a_file_is_spoiled_is_told_with_the_way_out(tmp_path: Path, damaged: str) -> None:
    authority = CertificateAuthority.create(tmp_path / "authority")
    pair = authority.issue_client("d1")
    material = IdentityMaterial(
        device_id="d1", device_name="edge", agent_address="127.0.0.1:1", broker_address="127.0.0.1:1", owner="me",
        key=pair.key_pem.encode(), certificate=pair.certificate_pem.encode(), ca=authority.certificate_pem.encode(),
    )  # fmt: skip
    identity = commit_identity(tmp_path, prepare_folder(tmp_path, material.key), material)
    sound = list(doctor._identity(tmp_path))
    assert [finding.mend for finding in sound if "cannot be used" in finding.what] == []
    (identity.key_file.parent / damaged).write_text("zeros, as a power cut leaves them")
    (known, found) = doctor._identity(tmp_path)
    assert known.level is Level.OK
    assert found.level is Level.PROBLEM
    assert "cannot be used" in found.what
    assert found.mend == "enroll it again with --force"


def test_an_accelerator_without_its_cdi_file_is_told_with_the_command_that_makes_one(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    assert list(_accelerators(tmp_path)) == []
    os.mkfifo(tmp_path / "dev/nvidia0")
    (found,) = _accelerators(tmp_path)
    assert "nvidia-ctk cdi generate" in found.mend
    (tmp_path / "etc/cdi").mkdir(parents=True)
    (tmp_path / "etc/cdi/nvidia.yaml").write_text("")
    assert list(_accelerators(tmp_path)) == []
