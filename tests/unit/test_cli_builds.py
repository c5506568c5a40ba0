"""`longshore build` and what belongs to it, against a build service whose answers are written here."""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from controller.cli import completion, main
from controller.cli.build_inputs import Secrets, chosen_targets, deploy_secrets, secret_values
from controller.cli.errors import Exit, UsageProblem
from controller.spec.loader import load_spec
from controller.spec.model import Spec
from longshore import outcome
from longshore.failures import LongshoreError, WaitTimeout
from longshore.v1 import build_pb2, types_pb2
from tests.support.scripted_builds import Script, Scripted, build, line, scripted_builds, target

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
SPEC = """\
version: 1
name: digits
build: {{secrets: [{secrets}], steps: ["true"]}}
deploy: {{entrypoint: [serve], network: {{ports: [{{name: http, container: 8080}}]}}}}
targets: [{{profile: x86-cpu}}, {{profile: arm64-cpu}}]
"""


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    for name in ("LONGSHORE_USER", "LONGSHORE_PROJECT", "LONGSHORE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "server"
    folder.mkdir()
    with scripted_builds(folder) as made:
        monkeypatch.setenv("LONGSHORE_CONTEXT", str(made.context_file))
        yield made


@pytest.fixture
def script(scripted: Scripted) -> Script:
    return scripted.script


def spec_file(folder: Path, *secrets: str) -> Path:
    path = folder / "deployment.yml"
    path.write_text(SPEC.format(secrets=", ".join(secrets)))
    return path


def artifact(name: str) -> types_pb2.Artifact:
    return types_pb2.Artifact(
        kind=types_pb2.ARTIFACT_KIND_IMAGE, repository=f"r/{name}", digest=f"sha256:{'0' * 64}", size_bytes=2**20
    )


def test_build_tells_each_change_of_each_target_and_then_what_was_made(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arm = target("arm64-cpu.bundle", "SUCCEEDED", artifact=artifact("a"), notes=["emulated: 2 scripts"])
    script.states = [
        build("QUEUED", target("x86-cpu", "QUEUED", queue_position=3), target("arm64-cpu.bundle", "QUEUED")),
        build("BUILDING", target("x86-cpu", "BUILDING"), arm),
        build("SUCCEEDED", target("x86-cpu", "SUCCEEDED", artifact=artifact("x"), cached_from="b0"), arm),
    ]
    script.states[-1].image_index.CopyFrom(artifact("all"))
    assert main.run(["build", str(spec_file(tmp_path))]) == Exit.OK
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        "x86-cpu: QUEUED (number 3)",
        "arm64-cpu.bundle: QUEUED",
        "x86-cpu: BUILDING",
        "arm64-cpu.bundle: SUCCEEDED",
        "x86-cpu: SUCCEEDED",
    ]
    zeros = "0" * 64
    assert told.out.splitlines() == [
        f"x86-cpu: r/x@sha256:{zeros} (as build b0)",
        f"arm64-cpu.bundle: r/a@sha256:{zeros}",
        "  emulated: 2 scripts",
        f"all: r/all@sha256:{zeros}",
    ]


def test_choices_of_the_command_line_reach_the_server(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.states = [build("QUEUED")]
    monkeypatch.setenv("INDEX_TOKEN", "t0k€n")
    (tmp_path / "key").write_bytes(b"\x00key\n")
    (tmp_path / "files.tar").write_bytes(b"tar")
    spec_file(tmp_path, "index", "key")
    words = ["build", str(tmp_path), "--target", "arm64-cpu", "--no-cache", "--no-wait"]
    secrets = ["--secret", "index=env:INDEX_TOKEN", "--secret", f"key={tmp_path / 'key'}"]
    assert main.run([*words, *secrets, "--archive", str(tmp_path / "files.tar"), "-p", "vision"]) == Exit.OK
    request = script.request(build_pb2.CreateBuildRequest)
    assert dict(request.secrets) == {"index": "t0k€n".encode(), "key": b"\x00key\n"}
    assert (list(request.targets), request.no_cache, request.project.project_id) == (
        ["arm64-cpu"],
        True,
        "vision",
    )
    assert request.archive == f"sha256:{hashlib.sha256(b'tar').hexdigest()}"
    assert not request.files
    assert request.archive in script.request(build_pb2.StatUploadsRequest).digests


def test_log_is_shown_in_full_where_it_is_asked_for(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.states = [build("BUILDING", target("x86-cpu", "BUILDING")), build("SUCCEEDED")]
    script.lines = [line(1, "STEP 1"), line(2, "both", "")]
    assert main.run(["build", "-f", str(spec_file(tmp_path)), "--follow"]) == Exit.OK
    assert {"x86-cpu: STEP 1", "both"} <= set(capsys.readouterr().err.splitlines())


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (
            build("FAILED", target("x86-cpu", "FAILED", reason="StepFailed", message="no", last_lines=["boom"])),
            "failed: StepFailed: build b1 for x86-cpu: no\n  | boom\n",
        ),
        (build("CANCELLED", target("x86-cpu", "CANCELLED")), "failed: Cancelled: build b1 was cancelled\n"),
    ],
    ids=["failed", "cancelled"],
)
def test_build_that_does_not_succeed_ends_with_1_and_the_reason(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str], last: build_pb2.Build, said: str
) -> None:
    script.states = [last]
    assert main.run(["build", str(spec_file(tmp_path)), "-o", "json"]) == Exit.FAILED
    told = capsys.readouterr()
    assert told.err.endswith(said)
    assert json.loads(told.out)["id"] == "b1"


def test_time_limit_says_that_the_build_goes_on(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.states = [build("BUILDING", target("x86-cpu", "BUILDING"))]
    assert main.run(["build", str(spec_file(tmp_path)), "--timeout", "0.3s"]) == Exit.TIMEOUT
    assert "it goes on: `longshore build logs b1 --follow`" in capsys.readouterr().err


def test_interrupt_leaves_the_build_and_says_how_to_end_it(scripted: Scripted, tmp_path: Path) -> None:
    scripted.script.states = [build("BUILDING", target("x86-cpu", "BUILDING"))]
    command = [sys.executable, "-m", "controller.cli.main", "build", str(spec_file(tmp_path))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stderr
        assert process.stderr.readline() == "x86-cpu: BUILDING\n"
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == Exit.INTERRUPTED, rest
    assert "`longshore build cancel b1` ends it" in rest
    assert "Traceback" not in rest
    assert not scripted.script.cancelled.is_set()


def test_terminal_shows_a_live_line_for_each_target(scripted: Scripted, tmp_path: Path) -> None:
    states = [build("BUILDING", target("x86-cpu", "BUILDING"), target("arm64-cpu", "QUEUED", queue_position=4))]
    scripted.script.states, scripted.script.lines = states, [line(1, "STEP 1/9: RUN")]
    shown, terminal = os.openpty()
    command = [sys.executable, "-m", "controller.cli.main", "build", str(spec_file(tmp_path))]
    variables = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "24", "NO_COLOR": "1"}
    wanted = (r"x86-cpu +BUILDING +STEP 1/9: RUN", r"arm64-cpu +QUEUED \(number 4\)")
    text = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True, env=variables) as process:
        assert process.stdout
        while not all(re.search(pattern, text) for pattern in wanted):
            # Without colours there are still bright and dim.
            text += re.sub(r"\x1b\[[02]m", "", os.read(shown, 65536).decode())
        states.append(build("SUCCEEDED", target("x86-cpu", "SUCCEEDED", artifact=artifact("x"))))
        assert process.stdout.read() == f"x86-cpu: r/x@sha256:{'0' * 64}\n"
    assert process.returncode == Exit.OK
    assert not re.search(r"\x1b\[[0-9;]*m", text)
    os.close(terminal)
    os.close(shown)


def test_word_that_is_nearly_a_command_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["build", "cancl", "b1"]) == Exit.INVALID
    assert capsys.readouterr().err == "error: no command, file or folder 'cancl'; did you mean 'cancel'?\n"


def test_folder_named_like_a_command_is_given_with_its_place(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.states = [build("QUEUED")]
    (tmp_path / "cancel").mkdir()
    spec_file(tmp_path / "cancel")
    monkeypatch.chdir(tmp_path)
    assert main.run(["build", "./cancel", "--no-wait"]) == Exit.OK
    assert not script.cancelled.is_set()


def test_build_without_a_word_takes_the_file_of_this_folder(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script.states = [build("QUEUED")]
    spec_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main.run(["build", "-d", "-o", "name"]) == Exit.OK
    assert capsys.readouterr().out == "b1\n"


def test_cancel_waits_until_nothing_runs(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    script.states = [
        build("BUILDING", target("x86-cpu", "BUILDING"), cancel_requested=True),
        build("CANCELLED", target("x86-cpu", "CANCELLED")),
    ]
    assert main.run(["build", "cancel", "b1"]) == Exit.OK
    assert script.request(build_pb2.CancelBuildRequest).id == "b1"
    assert capsys.readouterr().out == "build b1 is cancelled: CANCELLED\n"
    assert main.run(["build", "cancel", "b1", "--no-wait"]) == Exit.OK
    assert "is being cancelled" in capsys.readouterr().out


def test_lines_of_a_log_are_chosen_by_target_number_and_tail(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    script.lines = [line(1, "one"), line(2, "two", "arm64-cpu"), line(3, "three")]
    assert main.run(["build", "logs", "b1", "--from", "2"]) == Exit.OK
    assert capsys.readouterr().out == "arm64-cpu: two\nx86-cpu: three\n"
    assert main.run(["build", "logs", "b1", "--target", "x86-cpu", "--tail", "1"]) == Exit.OK
    assert capsys.readouterr().out == "three\n"
    assert main.run(["build", "logs", "b1", "--from", "3", "--timestamps"]) == Exit.OK
    assert capsys.readouterr().out.split()[0] == "3"
    assert main.run(["build", "logs", "b1", "--download", "x", "--follow"]) == Exit.INVALID


def test_download_that_broke_begins_again_and_replaces_the_file_as_a_whole(script: Script, tmp_path: Path) -> None:
    script.documents["log"], script.breaks = b"0123456789" * 1000, 2
    (tmp_path / "log.gz").write_bytes(b"old")
    assert main.run(["build", "logs", "b1", "--download", str(tmp_path / "log.gz")]) == Exit.OK
    assert (tmp_path / "log.gz").read_bytes() == script.documents["log"]
    assert [path.name for path in tmp_path.glob("*log.gz*")] == ["log.gz"]


def test_download_into_a_missing_folder_is_told(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.documents["log"] = b"log"
    assert main.run(["build", "logs", "b1", "--download", str(tmp_path / "no" / "log.gz")]) == Exit.FAILED
    assert "cannot write" in capsys.readouterr().err


CONTAINERFILE = b"FROM base:1\n"


def context_archive(*names: str) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(CONTAINERFILE)
            tar.addfile(member, io.BytesIO(CONTAINERFILE))
    return held.getvalue()


def test_context_becomes_a_folder_or_an_archive(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.documents["context"] = context_archive("Containerfile", "files/a.py")
    assert main.run(["build", "context", "b1", "--output", str(tmp_path / "out"), "--target", "x86-cpu"]) == Exit.OK
    assert (tmp_path / "out" / "files" / "a.py").read_bytes() == CONTAINERFILE
    assert "podman pull base:1\n" in capsys.readouterr().err
    assert script.request(build_pb2.DownloadBuildContextRequest).target == "x86-cpu"
    assert main.run(["build", "context", "b1", "-o", str(tmp_path / "out")]) == Exit.INVALID
    assert "is in use" in capsys.readouterr().err
    assert main.run(["build", "context", "b1", "-o", str(tmp_path / "c.tar")]) == Exit.OK
    assert (tmp_path / "c.tar").read_bytes() == script.documents["context"]


def test_context_never_leaves_its_folder(script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.documents["context"] = context_archive("../outside")
    assert main.run(["build", "context", "b1", "-o", str(tmp_path / "out")]) == Exit.INVALID
    assert "cannot unpack" in capsys.readouterr().err
    assert not (tmp_path / "outside").exists()


def test_containerfile_of_one_target_is_alone_on_stdout(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.rendered = [
        build_pb2.RenderedTarget(
            key="x86-cpu", platform="linux/amd64", kind=types_pb2.ARTIFACT_KIND_IMAGE, text="FROM a\n"
        ),
        build_pb2.RenderedTarget(key="arm64-cpu", text="FROM b\n", notes=["emulated"]),
    ]
    file = str(spec_file(tmp_path))
    assert main.run(["build", "render", file, "--target", "arm64-cpu"]) == Exit.OK
    told = capsys.readouterr()
    assert (told.out, told.err) == ("FROM b\n", "arm64-cpu: emulated\n")
    assert main.run(["build", "render", file]) == Exit.OK
    assert "# x86-cpu (image, linux/amd64)\nFROM a\n" in capsys.readouterr().out
    assert main.run(["build", "render", file, "--target", "arm64"]) == Exit.INVALID
    assert "did you mean 'arm64-cpu'?" in capsys.readouterr().err
    assert main.run(["build", "render", file, "-o", "yaml"]) == Exit.OK
    assert [entry["key"] for entry in yaml.safe_load(capsys.readouterr().out)] == ["x86-cpu", "arm64-cpu"]


def test_materials_are_printed_as_they_came(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    script.documents["materials"] = b'{"bomFormat": "CycloneDX"}'
    assert main.run(["build", "materials", "b1"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == {"bomFormat": "CycloneDX"}


def test_shell_is_told_ids_and_targets_and_nothing_where_no_server_is(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.states = [build("QUEUED")]
    script.profiles = [build_pb2.TargetProfile(name=name) for name in ("x86-cpu", "x86-cuda", "arm64-cpu")]
    assert completion.build_ids("b") == [("b1", "digits")]
    assert completion.build_ids("c") == []
    assert completion.target_keys("x86") == ["x86-cpu", "x86-cuda"]
    monkeypatch.setenv("LONGSHORE_CONTEXT", str(tmp_path / "none"))
    assert completion.build_ids("") == []
    assert completion.target_keys("") == []


def test_shell_completes_commands_and_options_of_a_build() -> None:
    def proposed(words: str, at: int) -> set[str]:
        variables = {"_LONGSHORE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        command = "from controller.cli.main import app; app(prog_name='longshore')"
        done = subprocess.run(
            [sys.executable, "-c", command], env={**os.environ, **variables}, capture_output=True, text=True, check=True
        )
        return set(done.stdout.split())

    assert {"cancel", "logs", "render", "context", "materials"} <= proposed("longshore build ", 2)
    assert "--no-cache" in proposed("longshore build --no", 2)


def test_following_a_build_outlasts_a_time_limit_only_as_a_timeout(scripted: Scripted) -> None:
    scripted.script.states = [build("QUEUED"), build("BUILDING"), build("SUCCEEDED")]
    seen = [one.state for one in scripted.client.follow_build("b1", interval=0.05)]
    assert seen == [build_pb2.BUILD_STATE_QUEUED, build_pb2.BUILD_STATE_BUILDING, build_pb2.BUILD_STATE_SUCCEEDED]
    assert scripted.client.wait_for_build("b1").state == build_pb2.BUILD_STATE_SUCCEEDED
    scripted.script.states = [build("BUILDING")]
    with pytest.raises(WaitTimeout, match="build b1"):
        scripted.client.wait_for_build("b1", timeout=0.2)


def test_judgement_of_a_build_is_open_until_it_has_ended() -> None:
    assert outcome.built(build("PUSHING")) is None
    assert outcome.built(build("SUCCEEDED")) == outcome.Outcome(True)
    assert outcome.built(build("FAILED", reason="R", message="m")) == outcome.Outcome(False, "R", "build b1: m")


@pytest.mark.parametrize(
    ("given", "names", "said"),
    [
        (["token"], ["token"], "expected name=FILE"),
        (["token=/no/such/file"], ["token"], "cannot read /no/such/file"),
        (["token=env:NO_SUCH_VARIABLE"], ["token"], "NO_SUCH_VARIABLE is not set"),
        (["tokn=env:HOME"], ["token"], "no secret tokn"),
        ([], ["token"], "--secret token=FILE"),
        (["token=env:HOME", "token=env:HOME"], ["token"], "twice"),
    ],
)
def test_secrets_that_do_not_fit_the_file_are_told_without_their_values(
    given: list[str], names: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/the/value")
    with pytest.raises(UsageProblem, match=said) as caught:
        secret_values(given, load_spec(SPEC.format(secrets=", ".join(names)).encode()))
    assert "/the/value" not in str(caught.value)


def test_target_that_the_file_does_not_have_is_told_with_those_that_it_has() -> None:
    text = SPEC.format(secrets="").replace("arm64-cpu", "arm64-cpu, artifact: bundle")
    spec = load_spec(text.replace(', steps: ["true"]', "").encode())
    assert chosen_targets(["arm64-cpu.bundle"], spec) == ["arm64-cpu.bundle"]
    with pytest.raises(UsageProblem, match=r"did you mean 'x86-cpu'\?; it has: x86-cpu, arm64-cpu.bundle"):
        chosen_targets(["x86-cuda"], spec)


def test_deploy_says_which_secrets_the_build_lacks(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["deploy", "-f", str(spec_file(tmp_path, "token"))]) == Exit.INVALID
    assert "--secret token=FILE" in capsys.readouterr().err
    assert script.requests == []


def both_parts() -> Spec:
    """A spec whose build and service name a secret each, and one that both name."""
    text = SPEC.format(secrets="index, shared").replace(
        "entrypoint: [serve]", "entrypoint: [serve], secrets: [{name: token}, {name: shared}]"
    )
    return load_spec(text.encode())


def test_each_secret_of_a_deployment_goes_to_whichever_part_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("index", "token", "shared"):
        monkeypatch.setenv(name.upper(), f"value of {name}")
    given = [f"{name}=env:{name.upper()}" for name in ("index", "token", "shared")]
    index, token, shared = ((name, f"value of {name}".encode()) for name in ("index", "token", "shared"))
    assert deploy_secrets(given, both_parts(), built=False) == Secrets(dict([index, shared]), dict([token, shared]))
    # Those of the service may be known from the revision before.
    assert deploy_secrets([given[0], given[2]], both_parts(), built=False) == Secrets(
        dict([index, shared]), dict([shared])
    )
    assert deploy_secrets(given[1:], both_parts(), built=True) == Secrets({}, dict([token, shared]))


@pytest.mark.parametrize(
    ("given", "built", "said"),
    [
        (["tokn=env:HOME"], False, "no secret tokn .* build.secrets names index, shared; deploy.secrets names shared"),
        (["shared=env:HOME"], False, "the build needs secrets: --secret index=FILE"),
        (["index=env:HOME"], True, "index: only build.secrets names it, and the build has had it"),
    ],
)
def test_secrets_of_a_deployment_that_do_not_fit_are_told_without_their_values(
    given: list[str], built: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/the/value")
    with pytest.raises(UsageProblem, match=said) as caught:
        deploy_secrets(given, both_parts(), built=built)
    assert "/the/value" not in str(caught.value)


def test_archive_that_goes_on_to_another_program_tells_that_it_broke(scripted: Scripted) -> None:
    scripted.script.documents["context"], scripted.script.breaks = b"0123", 1
    with pytest.raises(LongshoreError) as caught:
        b"".join(scripted.client.stream_build_context("b1"))
    assert caught.value.unreachable
