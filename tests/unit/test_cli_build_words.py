"""What people read of builds: tables, a live picture, plain lines."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from controller.cli import build_words, output
from controller.cli.build_progress import PlainBuild, picture
from longshore.uploads import UploadProgress
from longshore.v1 import build_pb2, types_pb2
from tests.support.scripted_builds import build, target

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def artifact(name: str) -> types_pb2.Artifact:
    return types_pb2.Artifact(
        kind=types_pb2.ARTIFACT_KIND_IMAGE, repository=f"r/{name}", digest=f"sha256:{'0' * 64}", size_bytes=2**20
    )


def ago(seconds: float) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(NOW - timedelta(seconds=seconds))
    return made


def drawn(sheet: output.Sheet) -> list[str]:
    target = io.StringIO()
    output.draw(sheet, output.console(target))
    return [line.rstrip() for line in target.getvalue().splitlines()]


def test_live_picture_has_a_line_for_each_target() -> None:
    shown = picture(
        build(
            "BUILDING",
            target("x86-cpu", "BUILDING", started=ago(95)),
            target("arm64-cpu", "QUEUED", queue_position=2),
            target("armv7-cpu", "SUCCEEDED", started=ago(300), ended=ago(100)),
        ),
        None,
        {"x86-cpu": "STEP 3/9: [bold]RUN", "": "unseen"},
        NOW,
    )
    held = io.StringIO()
    Console(file=held, width=100).print(shown)
    lines = [text.split() for text in held.getvalue().splitlines()]
    assert lines == [
        ["build", "b1", "of", "digits"],
        ["x86-cpu", "BUILDING", "95", "s", "STEP", "3/9:", "[bold]RUN"],
        ["arm64-cpu", "QUEUED", "(number", "2)"],
        ["armv7-cpu", "SUCCEEDED", "3m20s"],
    ]


def test_picture_shows_the_upload_before_there_is_a_build() -> None:
    held = io.StringIO()
    Console(file=held, width=100).print(picture(None, UploadProgress(1024, 2048, "model"), {}, NOW))
    assert held.getvalue() == "uploading model: 1.0 KiB of 2.0 KiB\n"


def test_place_in_the_queue_alone_makes_no_new_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainBuild(False)
    for position in (9, 8, 7):
        view.build(build("QUEUED", target("x86-cpu", "QUEUED", queue_position=position)))
    view.upload(UploadProgress(10, 10, "a"))
    assert capsys.readouterr().err.splitlines() == ["x86-cpu: QUEUED (number 9)", "uploaded 10 B"]


def test_wide_tables_have_more_columns_and_no_fewer_rows() -> None:
    made = build("SUCCEEDED", target("x86-cpu", "SUCCEEDED", artifact=artifact("x"), host="arm-1"), created=ago(60))
    narrow, wide = drawn(build_words.builds([made], NOW)), drawn(build_words.builds([made], NOW, wide=True))
    assert narrow[0].split() == ["ID", "NAME", "STATE", "TARGETS", "CREATED", "MESSAGE"]
    assert "r/x@sha256:" in wide[1]
    assert "arm-1" in drawn(build_words.targets(made.targets, NOW, wide=True))[1]


def test_build_that_is_being_cancelled_says_so_until_it_has_ended() -> None:
    going = build("BUILDING", cancel_requested=True)
    assert "BUILDING (cancelling)" in drawn(build_words.builds([going], NOW))[1]
    ended = build("CANCELLED", cancel_requested=True, ended=ago(1))
    assert "(cancelling)" not in drawn(build_words.builds([ended], NOW))[1]


def test_images_profiles_runtimes_fields_and_hosts_have_their_tables() -> None:
    image = build_pb2.BuiltImage(
        name="digits", build_id="b1", artifact=artifact("x"), tags=["v1", "v2"], in_use=True, created=ago(120)
    )
    assert drawn(build_words.images([image], NOW))[1].split() == [
        "digits", "all", "index", "1.0", "MiB", "2m", "yes", "b1", "v1,v2", "sha256:000000000000"
    ]  # fmt: skip
    profile = build_pb2.TargetProfile(
        name="x86-cuda", platform="linux/amd64", accelerator="nvidia.com/gpu", engines=["onnx", "python"],
        description="PC with a GPU", bases={"debian-bookworm": "b"}, artifacts=[types_pb2.ARTIFACT_KIND_IMAGE],
    )  # fmt: skip
    assert drawn(build_words.profiles([profile]))[1].split()[:4] == [
        "x86-cuda", "linux/amd64", "nvidia.com/gpu", "onnx,python"
    ]  # fmt: skip
    assert "debian-bookworm" in drawn(build_words.profiles([profile], wide=True))[1]
    runtime = build_pb2.Runtime(kind="onnx", serves_models=True, profiles=["x86-cpu"], notes="n", description="d")
    assert drawn(build_words.runtimes([runtime], wide=True))[1].split() == ["onnx", "yes", "x86-cpu", "n", "d"]
    fields = [
        build_pb2.FormField(path="deploy.restart", type="string", default_json='"always"', choices=["always", "never"]),
        build_pb2.FormField(path="build.files", type="list", maximum=10, required=True, help="h"),
        build_pb2.FormField(path="deploy.resources.memory", type="size", minimum=4 * 2**20),
        build_pb2.FormField(path="deploy.resources.cpu", type="number", minimum=0.5, maximum=4096),
        build_pb2.FormField(path="name", type="string", choices=["long" * 20]),
        build_pb2.FormField(
            path="host", type="integer", minimum=1, maximum=9,
            alternatives=[build_pb2.FormAlternative(type="string", choices=["auto"])],
        ),
    ]  # fmt: skip
    assert [row.split() for row in drawn(build_words.form(fields))[1:]] == [
        ["deploy.restart", "string", '"always"', "always|never"],
        ["build.files", "list", "(required)", "-", "..10", "h"],
        ["deploy.resources.memory", "size", "-", "4.0", "MiB.."],
        ["deploy.resources.cpu", "number", "-", "0.5..4096"],
        ["name", "string", "-", f"{'long' * 10}"[:39] + "…"],
        ["host", "integer", "or", "string", "-", "1..9", "or", "auto"],
    ]
    assert "long" * 20 in drawn(build_words.form(fields, wide=True))[-2]
    host = build_pb2.BuilderHost(name="local", address="local", slots=2, running=1, native_platforms=["linux/amd64"])
    assert drawn(build_words.hosts([host], NOW))[1].split() == [
        "local",
        "local",
        "1/2",
        "linux/amd64",
        "-",
        "-",
        "able",
    ]


def test_a_fetched_context_is_built_by_hand_on_the_very_base_that_its_containerfile_names(tmp_path: Path) -> None:
    folder = tmp_path / "my digits"
    folder.mkdir()
    (folder / "Containerfile").write_text("FROM registry.example:5000/python:3.11\nUSER 0\n")
    assert build_words.by_hand(folder).splitlines() == [
        "podman pull registry.example:5000/python:3.11",
        "podman build --from \"$(podman image inspect --format '{{.Id}}' registry.example:5000/python:3.11)\""
        f" --layers --timestamp 0 --network host '{folder}'",
    ]
