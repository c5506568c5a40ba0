"""What people and programs read: tables, lines, JSON and YAML."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from controller.cli import build_words, output, words
from controller.cli.output import Format
from controller.cli.progress import PlainProgress, picture, state_lines
from longshore.uploads import UploadProgress
from longshore.v1 import build_pb2, deployment_pb2, device_pb2, event_pb2, mqtt_pb2, types_pb2

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def ago(**span: float) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(NOW - timedelta(**span))
    return made


def deployment(**fields: object) -> deployment_pb2.Deployment:
    made = deployment_pb2.Deployment(
        name="digits", revision=2, instances_wanted=2, instances_ready=1, since=ago(minutes=3)
    )
    made.MergeFrom(deployment_pb2.Deployment(**fields))  # type: ignore[arg-type]  # fields as the tests name them
    return made


def instance(**status: object) -> deployment_pb2.Instance:
    return deployment_pb2.Instance(
        deployment_name="digits",
        device_name="edge",
        device_id="d1",
        device_online=True,
        status=types_pb2.InstanceStatus(**status),  # type: ignore[arg-type]
    )


def drawn(sheet: output.Sheet) -> list[str]:
    """The lines that a file or a pipe gets."""
    target = io.StringIO()
    output.draw(sheet, output.console(target))
    return [line.rstrip() for line in target.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("span", "text"),
    [(timedelta(0), "0s"), (timedelta(seconds=59), "59s"), (timedelta(minutes=3), "3m"), (timedelta(hours=30), "1d")],
)
def test_ages_are_told_in_the_largest_unit(span: timedelta, text: str) -> None:
    assert words.age(ago(seconds=span.total_seconds()), NOW) == text


def test_age_of_what_never_was_is_a_dash_and_the_future_is_now() -> None:
    assert words.age(Timestamp(), NOW) == "-"
    assert words.age(ago(seconds=-5), NOW) == "0s"


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**30, "5.0 GiB")])
def test_sizes_are_told_in_binary_units(count: int, text: str) -> None:
    assert words.size(count) == text


def test_table_of_deployments_aligns_and_is_never_cut_in_a_pipe() -> None:
    long = "no device matches " * 30
    entries = [
        deployment(state=deployment_pb2.DEPLOYMENT_STATE_READY),
        deployment(name="a", state=deployment_pb2.DEPLOYMENT_STATE_PENDING, reason="Waits", message=long),
    ]
    lines = drawn(words.deployments(entries, NOW))
    assert lines[0].split() == ["NAME", "STATE", "READY", "REVISION", "SINCE", "MESSAGE"]
    assert lines[1].split() == ["digits", "READY", "1/2", "2", "3m"]
    assert lines[2].endswith(f"Waits: {long.strip()}")
    assert len(lines) == 3


def test_markup_in_messages_is_shown_as_it_is() -> None:
    lines = drawn(words.deployments([deployment(message="[red]x[/red] [0]")], NOW))
    assert lines[1].endswith("[red]x[/red] [0]")


def test_table_of_all_projects_names_them() -> None:
    entry = deployment(project=types_pb2.Project(user_id="alice", project_id="vision"))
    assert drawn(words.deployments([entry], NOW, owner=True))[1].startswith("alice/vision  digits")


def test_instances_show_endpoint_progress_and_devices_out_of_sight() -> None:
    running = instance(
        state=types_pb2.INSTANCE_STATE_RUNNING,
        ready=True,
        revision=2,
        endpoints=[types_pb2.Endpoint(name="http", host="fe80::1", port=8080, scheme="http")],
    )
    fetching = instance(state=types_pb2.INSTANCE_STATE_FETCHING, fetched_bytes=1, total_bytes=4)
    fetching.device_online = False
    lines = drawn(words.instances([running, fetching], NOW))
    assert lines[1].split() == ["digits", "edge", "RUNNING", "yes", "2", "0", "-", "http://[fe80::1]:8080"]
    assert "edge (offline)  FETCHING 25%  no" in lines[2]


def test_devices_and_builds_have_their_tables() -> None:
    device = device_pb2.Device(
        name="edge", labels={"b": "2", "a": "1"}, presence=device_pb2.DEVICE_PRESENCE_ONLINE, id="d1"
    )
    assert drawn(words.devices([device], NOW))[1].split() == ["edge", "ONLINE", "-", "-", "-", "a=1,b=2", "d1"]
    target = build_pb2.BuildTarget(profile="x86-cpu", state=build_pb2.BUILD_STATE_PUSHING)
    build = build_pb2.Build(id="b1", name="digits", state=build_pb2.BUILD_STATE_PUSHING, targets=[target])
    assert drawn(build_words.builds([build], NOW))[1].split() == ["b1", "digits", "PUSHING", "x86-cpu:PUSHING", "-"]


def measured(name: str, rate: int | None, **metrics: object) -> deployment_pb2.Instance:
    made = instance(state=types_pb2.INSTANCE_STATE_RUNNING)
    made.deployment_name = name
    made.use.metrics.MergeFrom(mqtt_pb2.InstanceMetrics(**metrics))  # type: ignore[arg-type]  # as the tests name them
    made.use.measured.CopyFrom(ago(minutes=4))
    if rate is not None:
        made.use.cpu_millis_per_second = rate
    return made


def test_top_shows_what_is_busy_first_and_what_is_not_known_as_such() -> None:
    gpu = mqtt_pb2.AcceleratorUse(name="NVIDIA T4", busy_percent=40, memory_kib=2048)
    entries = [
        instance(state=types_pb2.INSTANCE_STATE_RUNNING),
        measured("quiet", None, memory_kib=1024),
        measured("busy", 1234, memory_kib=1024, memory_peak_kib=2048, network_received_bytes=1, network_sent_bytes=2048,
                 block_read_bytes=0, block_written_bytes=3 * 2**30, accelerators=[gpu]),
    ]  # fmt: skip
    lines = [line.split("  ") for line in drawn(words.top(entries, NOW))]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[1] == [
        "busy", "edge", "123 %", "1.0 MiB", "2.0 MiB", "1 B", "2.0 KiB", "0 B", "3.0 GiB", "NVIDIA T4 40 % 2.0 MiB",
        "4m ago",
    ]  # fmt: skip
    assert cells[2] == ["digits", "edge", *["-"] * 9]
    assert cells[3] == ["quiet", "edge", "-", "1.0 MiB", "-", "0 B", "0 B", "0 B", "0 B", "-", "4m ago"]


def test_facts_of_a_device_have_a_line_each() -> None:
    facts = device_pb2.DeviceFacts(
        architecture="amd64", os="Debian", kernel="6.1", cpus=4, memory_bytes=2**30, agent_version="0.2",
        backend="podman 5.0", model="ACME 1", capabilities=["exec", "limits:cgroup-v2"],
        accelerators=[
            device_pb2.Accelerator(kind="nvidia.com/gpu", name="NVIDIA T4", devices=["nvidia.com/gpu=0"],
                                   memory_bytes=16 * 2**30, driver="550.1"),
            device_pb2.Accelerator(kind="nvidia.com/gpu"),
        ],
        disks=[device_pb2.Disk(path="/", size_bytes=2**30, free_bytes=2**29)],
    )  # fmt: skip
    assert [" ".join(line.split()) for line in drawn(words.device_facts(facts))] == [
        "FACT VALUE",
        "model ACME 1",
        "system Debian, kernel 6.1",
        "processor amd64, 4 cores",
        "memory 1.0 GiB",
        "disk /: 512.0 MiB of 1.0 GiB free",
        "accelerator nvidia.com/gpu: NVIDIA T4, 16.0 GiB, driver 550.1, nvidia.com/gpu=0",
        "accelerator nvidia.com/gpu: no device",
        "agent 0.2",
        "backend podman 5.0",
        "can do exec, limits:cgroup-v2",
    ]
    wide = drawn(words.devices([device_pb2.Device(name="edge", facts=facts), device_pb2.Device()], NOW, wide=True))
    assert "amd64  4     1.0 GiB  ACME 1  2 x nvidia.com/gpu  podman 5.0" in wide[1]


def test_event_is_one_line_even_with_a_message_of_several() -> None:
    event = event_pb2.Event(
        number=7,
        kind=event_pb2.EVENT_KIND_INSTANCE,
        deployment_id="dep",
        device_id="d1",
        revision=3,
        state="RUNNING",
        ready=True,
        reason="Ready",
        message="HTTP 200\nfrom /healthz",
        time=ago(),
    )
    line = words.event_line(event)
    assert line.split()[:8] == ["7", "2026-01-02", "12:00:00", "instance", "RUNNING", "ready", "dep", "on"]
    assert line.endswith("d1 r3  Ready: HTTP 200 from /healthz")


def test_programs_get_every_field_under_the_names_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    output.write_list([deployment()], ["digits"], output.Sheet((), ()), Format.JSON)
    (entry,) = json.loads(capsys.readouterr().out)
    assert set(entry) >= {"id", "build_id", "instances_ready", "state", "reason"}
    assert entry["state"] == "DEPLOYMENT_STATE_UNSPECIFIED"
    output.write_list([deployment()], ["digits"], output.Sheet((), ()), Format.YAML)
    assert yaml.safe_load(capsys.readouterr().out) == [entry]


def test_names_come_one_a_line_and_nothing_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.write_list([deployment(), deployment(name="b")], ["digits", "b"], output.Sheet((), ()), Format.NAME)
    assert capsys.readouterr().out == "digits\nb\n"
    output.write_list([], [], output.Sheet((), ()), Format.JSON)
    assert json.loads(capsys.readouterr().out) == []


def test_endless_lists_are_a_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        output.write_item(event_pb2.Event(number=number), str(number), Format.JSON)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["number"] for line in lines] == ["1", "2"]
    for number in (1, 2):
        output.write_item(event_pb2.Event(number=number), str(number), Format.YAML)
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [document["number"] for document in documents] == ["1", "2"]


def test_plain_progress_says_each_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainProgress()
    answer = deployment_pb2.GetDeploymentResponse(
        deployment=deployment(state=deployment_pb2.DEPLOYMENT_STATE_PROGRESSING),
        instances=[instance(state=types_pb2.INSTANCE_STATE_FETCHING, fetched_bytes=1, total_bytes=9)],
    )
    view.answer(answer)
    answer.instances[0].status.fetched_bytes = 8
    view.answer(answer)
    answer.instances[0].status.state = types_pb2.INSTANCE_STATE_RUNNING
    answer.instances[0].status.ready = True
    view.answer(answer)
    view.upload(UploadProgress(5, 10, "a"))
    view.upload(UploadProgress(10, 10, "a"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "digits r2: PROGRESSING",
        "  edge: FETCHING",
        "  edge: RUNNING ready",
        "uploaded 10 B",
    ]


def test_state_lines_carry_reason_and_message() -> None:
    waiting = deployment(state=deployment_pb2.DEPLOYMENT_STATE_PENDING, reason="NoDevice", message="none matches")
    answer = deployment_pb2.GetDeploymentResponse(deployment=waiting)
    assert list(state_lines(answer)) == [("", "digits r2: PENDING - NoDevice: none matches")]


def test_live_picture_shows_upload_state_instances_and_the_end_of_the_build_log() -> None:
    answer = deployment_pb2.GetDeploymentResponse(
        deployment=deployment(state=deployment_pb2.DEPLOYMENT_STATE_BUILDING),
        instances=[instance(state=types_pb2.INSTANCE_STATE_PENDING)],
    )
    target = io.StringIO()
    shown = picture(answer, UploadProgress(1024, 2048, "model"), ["STEP 1/2"], 3.2)
    Console(file=target, width=120).print(shown)
    text = target.getvalue()
    assert "uploading model: 1.0 KiB of 2.0 KiB" in text
    assert "BUILDING digits r2  3 s" in text
    assert "PENDING" in text
    assert "STEP 1/2" in text


def test_colours_are_left_out_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = words.deployments([deployment(state=deployment_pb2.DEPLOYMENT_STATE_FAILED)], NOW)
    coloured = io.StringIO()
    output.draw(sheet, Console(file=coloured, force_terminal=True, width=100, color_system="standard"))
    assert "\x1b[1;31m" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = io.StringIO()
    output.draw(sheet, Console(file=plain, force_terminal=True, width=100, color_system="standard"))
    assert "31m" not in plain.getvalue()
