"""What commands do that go on: lists that are watched, logs of several instances, waiting."""

from collections.abc import Iterator
from itertools import islice

import pytest

from controller.cli import listing, main, waiting
from controller.cli.errors import Exit, UsageProblem
from controller.cli.listing import Listing
from controller.cli.many_logs import Reader, Said, Unread, as_they_come, in_order
from controller.cli.output import Sheet
from longshore.failures import LongshoreError
from longshore.v1 import deployment_pb2, types_pb2


def test_a_watched_list_tells_what_is_new_or_another_once() -> None:
    pictures = [{"a": 1}, {"a": 1, "b": 1}, {"a": 2}, {"a": 2, "b": 1}]
    looks = iter(pictures)

    def look() -> Listing:
        now = next(looks)
        messages = [deployment_pb2.Deployment(name=name, revision=revision) for name, revision in now.items()]
        return Listing(messages, list(now), Sheet((), ()), list(now))

    seen = islice(listing.changed(look, lambda: None), 4)
    assert [(name, getattr(message, "revision", 0)) for message, name in seen] == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("b", 1),
    ]


def test_a_watched_list_tells_apart_what_has_one_name() -> None:
    both = [
        deployment_pb2.Instance(deployment_id=one, deployment_name="digits", device_id="d", device_name="edge-7")
        for one in ("of-alice", "of-bob")
    ]
    looks = iter([both, both, both[:1], both])
    seen = islice(listing.changed(lambda: listing.of_instances(next(looks), Sheet((), ())), lambda: None), 3)
    assert list(seen) == [(both[0], "digits/edge-7"), (both[1], "digits/edge-7"), (both[1], "digits/edge-7")]


def reader(*seconds: int, fails: bool = False) -> Reader:
    def read() -> Iterator[types_pb2.LogLine]:
        for second in seconds:
            line = types_pb2.LogLine(text=str(second))
            line.time.seconds = second
            yield line
        if fails:
            raise LongshoreError("DEVICE_UNREACHABLE", "offline")

    return read


def test_logs_of_several_devices_are_one_by_time_and_one_that_fails_hinders_none() -> None:
    readers = {"a": reader(1, 4), "b": reader(2, 3, 5), "c": reader(0, fails=True)}
    said = [(one.source, one.line.text) for one in in_order(readers) if isinstance(one, Said)]
    assert said == [("c", "0"), ("a", "1"), ("b", "2"), ("b", "3"), ("a", "4"), ("b", "5")]
    assert [one.source for one in in_order(readers) if isinstance(one, Unread)] == ["c"]


def test_followed_logs_come_whole_and_each_in_its_order() -> None:
    told = list(as_they_come({"a": reader(1, 4), "b": reader(2, 3, fails=True)}))
    lines = [(one.source, one.line.text) for one in told if isinstance(one, Said)]
    assert [text for source, text in lines if source == "a"] == ["1", "4"]
    assert [text for source, text in lines if source == "b"] == ["2", "3"]
    assert [one.source for one in told if isinstance(one, Unread)] == ["b"]


def answer(state: deployment_pb2.DeploymentState.ValueType) -> deployment_pb2.GetDeploymentResponse:
    return deployment_pb2.GetDeploymentResponse(deployment=deployment_pb2.Deployment(state=state, revision=2))


def test_waiting_ends_once_it_is_so_or_cannot_become_so() -> None:
    ready, failed = deployment_pb2.DEPLOYMENT_STATE_READY, deployment_pb2.DEPLOYMENT_STATE_FAILED
    stopped, deleted = deployment_pb2.DEPLOYMENT_STATE_STOPPED, deployment_pb2.DEPLOYMENT_STATE_DELETED
    judged = {
        (wanted, state): end and end.ok
        for wanted in waiting.STATES[waiting.Kind.DEPLOYMENT]
        for state in (ready, failed, stopped, deleted)
        for end in [waiting.judge_of(wanted)(answer(state))]
    }
    assert [judged["ready", state] for state in (ready, failed, stopped, deleted)] == [True, False, False, False]
    assert [judged["stopped", state] for state in (ready, failed, stopped, deleted)] == [None, None, True, True]
    assert [judged["deleted", state] for state in (ready, failed, stopped, deleted)] == [None, None, None, True]


def test_a_difference_has_one_second_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["deployments", "diff", "digits", "--to", "2", "-f", "deployment.yml"]) == Exit.INVALID
    assert "it goes without --to" in capsys.readouterr().err


def test_what_cannot_be_waited_for_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert waiting.parsed("device/edge-7") == (waiting.Kind.DEVICE, "edge-7")
    with pytest.raises(UsageProblem, match="known: deployment, build, device"):
        waiting.parsed("pod/x")
    assert main.run(["wait", "digits", "--for", "luck"]) == Exit.INVALID
    assert "ready, stopped, deleted" in capsys.readouterr().err
