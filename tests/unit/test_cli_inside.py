"""What `longshore exec` and `longshore port-forward` make of their words, without a controller."""

import pytest

from controller.cli.errors import UsageProblem
from controller.cli.inside import _known_port, _ports
from longshore.client import Answer
from longshore.failures import LongshoreError
from longshore.v1 import deployment_pb2, types_pb2


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("8080:http", (8080, "http")),
        ("0:http", (0, "http")),
        ("8080", (8080, "")),
        ("8080:", (8080, "")),
        ("http", (0, "http")),
    ],
)
def test_ports_are_understood(text: str, meant: tuple[int, str]) -> None:
    assert _ports(text) == meant


@pytest.mark.parametrize("text", ["http:8080", ":http", "99999:http", "-1:http", "8080:http".replace("8", "x")])
def test_other_ports_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageProblem, match="such as 8080:http"):
        _ports(text)


def answer(*ports: str, device_id: str = "dev-1") -> Answer:
    endpoints = [types_pb2.Endpoint(name=name) for name in ports]
    status = types_pb2.InstanceStatus(endpoints=endpoints)
    return Answer(instances=[deployment_pb2.Instance(device_id=device_id, status=status)])


def test_port_is_the_one_that_is_named_or_the_only_one() -> None:
    assert _known_port(answer("http", "metrics"), "", "metrics") == "metrics"
    assert _known_port(answer("http"), "", "") == "http"
    assert _known_port(answer("http", "metrics"), "", "") == ""


def test_device_has_the_last_word_where_nothing_is_known() -> None:
    assert _known_port(answer(), "", "metrics") == "metrics"
    assert _known_port(answer("http"), "dev-2", "metrics") == "metrics"


def test_unknown_port_is_told_with_those_that_there_are() -> None:
    with pytest.raises(LongshoreError, match="its ports are: http, metrics"):
        _known_port(answer("http", "metrics"), "dev-1", "web")
