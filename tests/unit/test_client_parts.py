"""The client's parts that need no controller: files, errors, judgements, streams that break."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2, status_pb2

from longshore import calls, outcome
from longshore.client import Client, project
from longshore.failures import LongshoreError, Problem, WaitTimeout, from_rpc
from longshore.logs import LogCursor
from longshore.sources import collect
from longshore.v1 import build_pb2, deployment_pb2, types_pb2


class Broken(grpc.RpcError):
    """What grpc raises for a failed call."""

    def __init__(self, code: grpc.StatusCode, *details: Any) -> None:
        super().__init__()
        self._code = code
        status = status_pb2.Status(code=code.value[0], message="said by the server")
        for detail in details:
            packed = Packed()
            packed.Pack(detail)
            status.details.append(packed)
        self._metadata = (("grpc-status-details-bin", status.SerializeToString()),) if details else ()

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "said by the server"

    def trailing_metadata(self) -> Any:
        return self._metadata


class Script:
    """A stream that yields what it is told, and then breaks or ends."""

    def __init__(self, *steps: Any) -> None:
        self._steps = steps
        self.cancelled = False

    def __iter__(self) -> Iterator[Any]:
        for step in self._steps:
            if isinstance(step, Exception):
                raise step
            yield step

    def cancel(self) -> None:
        self.cancelled = True


def lost() -> Broken:
    return Broken(grpc.StatusCode.UNAVAILABLE)


def test_folders_are_collected_as_their_files_sorted_and_once(tmp_path: Path) -> None:
    (tmp_path / "model" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "deep" / "b.bin").write_bytes(b"b")
    (tmp_path / "model" / "a.bin").write_bytes(b"")
    run = tmp_path / "run.sh"
    run.write_text("#!/bin/sh\n")
    run.chmod(0o755)
    entries = [source.entry for source in collect(tmp_path, ["run.sh", "./model/", "model/a.bin"])]
    assert [entry.path for entry in entries] == ["model/a.bin", "model/deep/b.bin", "run.sh"]
    assert [entry.executable for entry in entries] == [False, False, True]
    assert [entry.size_bytes for entry in entries] == [0, 1, 10]
    assert entries[0].digest == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_links_are_followed_below_the_folder_and_refused_outside(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "secret").write_text("x")
    (here / "real").write_text("y")
    (here / "inside").symlink_to("real")
    (here / "outside").symlink_to("../secret")
    (here / "loop").symlink_to("loop")
    (here / "folder").mkdir()
    (here / "folder" / "up").symlink_to("..")
    assert collect(here, ["inside"])[0].entry.size_bytes == 1
    with pytest.raises(LongshoreError) as caught:
        collect(here, ["outside", "loop", "folder", "../secret", "missing"])
    assert [problem.path for problem in caught.value.problems] == [
        "outside",
        "loop",
        "folder/up",
        "../secret",
        "missing",
    ]
    assert caught.value.reason == "FILES_UNUSABLE"


def test_folder_that_cannot_be_listed_is_told_as_any_other_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    listed = Path.iterdir

    def refused(folder: Path) -> Iterator[Path]:
        # Permissions do not keep root out.
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied")
        return iter(listed(folder))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(LongshoreError) as caught:
        collect(tmp_path, ["."])
    assert [(problem.path, problem.message) for problem in caught.value.problems] == [
        ("closed", "cannot be read: Permission denied")
    ]


def test_empty_folders_and_special_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LongshoreError) as caught:
        collect(tmp_path, ["empty", "pipe"])
    assert [problem.message for problem in caught.value.problems] == [
        "the folder holds no files",
        "neither a file nor a folder",
    ]


def test_error_carries_reason_and_problems_of_the_server() -> None:
    problem = build_pb2.SpecProblem(path="build.base", line=3, column=9, message="no image")
    failure = from_rpc(
        Broken(
            grpc.StatusCode.INVALID_ARGUMENT,
            error_details_pb2.ErrorInfo(reason="INVALID_SPEC", domain="longshore", metadata={"k": "v"}),
            build_pb2.SpecProblems(problems=[problem]),
        )
    )
    assert (failure.reason, failure.message, failure.code) == ("INVALID_SPEC", "said by the server", "INVALID_ARGUMENT")
    assert failure.problems == (Problem("build.base", 3, 9, "no image"),)
    assert failure.metadata == {"k": "v"}
    assert failure.invalid
    assert not failure.unreachable


def test_error_without_details_is_named_after_its_status() -> None:
    failure = from_rpc(lost())
    assert failure.reason == "UNAVAILABLE"
    assert failure.unreachable
    device = error_details_pb2.ErrorInfo(reason="DEVICE_UNREACHABLE")
    assert not from_rpc(Broken(grpc.StatusCode.UNAVAILABLE, device)).unreachable


def test_stream_goes_on_after_it_broke_and_ends_when_it_ends() -> None:
    scripts = [Script(1, 2, lost()), Script(lost()), Script(3)]
    streams = iter(scripts)
    assert list(calls.resuming(lambda _: next(streams), patience=10)) == [1, 2, 3]
    assert all(script.cancelled for script in scripts)


def test_patience_counts_from_the_break_and_not_from_the_last_message() -> None:
    streams: Iterator[Any] = iter([Script(1)])
    first = Slow(0.4)
    assert list(calls.resuming(lambda _: first if not first.used else next(streams), patience=0.3)) == [0, 1]


class Slow:
    """A stream that yields once, says nothing for a while, and breaks."""

    def __init__(self, pause: float) -> None:
        self.used = False
        self._pause = pause

    def __iter__(self) -> Iterator[Any]:
        self.used = True
        yield 0
        time.sleep(self._pause)
        raise lost()

    def cancel(self) -> None:
        self.used = True


def test_stream_gives_up_when_patience_ends() -> None:
    with pytest.raises(LongshoreError) as caught:
        list(calls.resuming(lambda _: Script(lost()), patience=0.2))
    assert caught.value.unreachable


def test_stream_passes_other_errors_on_at_once() -> None:
    opened: list[Script] = []

    def open_stream(_: float | None) -> Script:
        opened.append(Script(Broken(grpc.StatusCode.NOT_FOUND)))
        return opened[-1]

    with pytest.raises(LongshoreError) as caught:
        list(calls.resuming(open_stream, patience=10))
    assert caught.value.reason == "NOT_FOUND"
    assert len(opened) == 1


def test_stream_past_its_deadline_is_a_timeout() -> None:
    with pytest.raises(WaitTimeout):
        list(calls.resuming(lambda _: Script(lost()), patience=None, deadline=calls.Deadline.after(0.1)))


def test_silent_stream_is_broken_off_and_opened_again() -> None:
    silent = Silent()
    streams: Iterator[Any] = iter([silent, Script("after")])
    assert list(calls.resuming(lambda _: next(streams), patience=10, silence=0.1)) == ["after"]


class Silent:
    """A stream that says nothing until it is cancelled."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()

    def __iter__(self) -> "Silent":
        return self

    def __next__(self) -> Any:
        assert self._cancelled.wait(10)
        raise Broken(grpc.StatusCode.CANCELLED)

    def cancel(self) -> None:
        self._cancelled.set()


def test_a_controller_has_an_hour_to_unpack_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def answer(*_: Any, timeout: float, patience: float) -> build_pb2.CreateBuildResponse:
        seen.append(timeout)
        return build_pb2.CreateBuildResponse()

    monkeypatch.setattr(calls, "unary", answer)
    (tmp_path / "deployment.yml").write_text("version: 1")
    (tmp_path / "files.tar").write_bytes(b"")
    with Client("127.0.0.1:1", "token", None, timeout=30) as client:
        monkeypatch.setattr(client, "upload", lambda sources, _: [each.entry for each in sources])
        client.build(tmp_path / "deployment.yml", project("alice", "vision"), archive=tmp_path / "files.tar")
        client.build(tmp_path / "deployment.yml", project("alice", "vision"))
    assert seen == [3600, 30]


def test_log_lines_that_come_again_are_dropped_and_none_is_lost() -> None:
    def line(second: int, text: str) -> types_pb2.LogLine:
        made = types_pb2.LogLine(text=text)
        made.time.FromSeconds(second)
        return made

    first, second, twin, later = line(1, "a"), line(2, "b"), line(2, "c"), line(3, "d")
    request = deployment_pb2.ReadInstanceLogRequest(tail=5)
    cursor = LogCursor(request)
    streams = iter([Script(first, second, lost()), Script(second, twin, lost()), Script(second, twin, later)])
    seen = calls.resuming(cursor.opening(lambda _: next(streams)), patience=10)
    assert [message.text for message in seen if cursor.is_new(message)] == ["a", "b", "c", "d"]
    assert request.tail == 0
    assert request.since.seconds == 3


def answer(state: str, revision: int = 2, *instances: types_pb2.InstanceStatus) -> deployment_pb2.GetDeploymentResponse:
    return deployment_pb2.GetDeploymentResponse(
        deployment=deployment_pb2.Deployment(
            name="digits",
            revision=revision,
            state=deployment_pb2.DeploymentState.Value(f"DEPLOYMENT_STATE_{state}"),
            reason="Why",
        ),
        instances=[deployment_pb2.Instance(device_name="edge", status=status) for status in instances],
    )


def backoff(attempts: int, revision: int = 2) -> types_pb2.InstanceStatus:
    return types_pb2.InstanceStatus(
        state=types_pb2.INSTANCE_STATE_BACKOFF,
        revision=revision,
        attempts=attempts,
        reason="CrashLoop",
        message="exited with 3",
        last_lines=["boom"],
    )


@pytest.mark.parametrize("state", ["BUILDING", "PENDING", "PROGRESSING", "DEGRADED"])
def test_waiting_goes_on_while_the_outcome_is_open(state: str) -> None:
    assert outcome.ready(answer(state, 2, backoff(2)), 2) is None


def test_waiting_ends_well_only_for_the_revision_that_was_asked_for() -> None:
    assert outcome.ready(answer("READY"), 2) == outcome.Outcome(True, "Ready", "")
    replaced = outcome.ready(answer("READY", 3), 2)
    assert replaced
    assert (replaced.ok, replaced.reason) == (False, "Superseded")


@pytest.mark.parametrize(
    ("state", "reason"), [("FAILED", "Why"), ("STOPPED", "Stopped"), ("STOPPING", "Stopped"), ("DELETED", "Deleted")]
)
def test_waiting_ends_badly_when_it_failed_or_is_not_wished_any_more(state: str, reason: str) -> None:
    end = outcome.ready(answer(state), 2)
    assert end
    assert (end.ok, end.reason) == (False, reason)


def test_waiting_gives_up_on_an_instance_that_failed_three_times() -> None:
    end = outcome.ready(answer("DEGRADED", 2, backoff(3)), 2)
    assert end == outcome.Outcome(False, "CrashLoop", "on edge: exited with 3 (3 failed tries)", ("boom",))
    assert outcome.ready(answer("PROGRESSING", 2, backoff(5, revision=1)), 2) is None


def test_waiting_sees_that_an_instance_went_back_to_the_revision_before() -> None:
    status = types_pb2.InstanceStatus(
        state=types_pb2.INSTANCE_STATE_RUNNING,
        ready=True,
        revision=1,
        reason="RolledBack",
        message="it crashed",
    )
    end = outcome.ready(answer("DEGRADED", 2, status), 2)
    assert end
    assert (end.ok, end.reason, end.message) == (False, "RolledBack", "on edge: it crashed")


def test_stopping_and_deleting_are_over_when_the_state_says_so() -> None:
    assert outcome.stopped(answer("STOPPING")) is None
    assert outcome.stopped(answer("STOPPED")) == outcome.Outcome(True)
    assert outcome.deleted(answer("DELETING")) is None
    assert outcome.deleted(answer("DELETED")) == outcome.Outcome(True)
    again = outcome.stopped(answer("PROGRESSING"))
    assert again
    assert not again.ok
