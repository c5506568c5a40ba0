"""Folders of secrets: nobody's start loses its own, and nothing is left of one that failed."""

from pathlib import Path

import pytest

from edge_agent.runtime.model import Artifact, Check, CommandProbe, Secret, Workload
from edge_agent.runtime.secret_files import SecretFolders

WORKLOAD = Workload(
    "d-1", 1, "digits", "alice", "demo", Artifact("r", "sha256:0", "linux/amd64"), Check(CommandProbe(("true",))),
    secrets=(Secret("one", "/run/one", b"1"), Secret("two", "/run/two", b"2")),
)  # fmt: skip


def test_cleaning_up_spares_a_start_that_is_under_way(tmp_path: Path) -> None:
    left, _ = SecretFolders(tmp_path).write(WORKLOAD)
    folders = SecretFolders(tmp_path)
    begun, files = folders.write(WORKLOAD)
    folders.keep_only(set())
    assert [path.name for path in tmp_path.iterdir()] == [begun]
    assert files["/run/two"].read_bytes() == b"2"
    folders.remove(begun)
    assert list(tmp_path.iterdir()) == []
    assert left != begun


def test_nothing_is_left_of_secrets_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr("os.chown", refuse)
    with pytest.raises(PermissionError):
        SecretFolders(tmp_path).write(WORKLOAD, user=1)
    assert list(tmp_path.iterdir()) == []
