"""The inference check: an answer is right only if the model said what was expected, in time."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runtime.checks import ask
from edge_agent.runtime.inference import ANSWER_LIMIT, differences, infer, judge
from edge_agent.runtime.model import Check, InferenceProbe
from tests.support.workloads import make_observed

PROBE = InferenceProbe("http", "/infer", b'{"x": 1}', expect='{"digit": 7, "scores": [0.1, 0.9]}', tolerance=0.05)
RIGHT = {"digit": 7, "scores": [0.12, 0.88], "model": "digits"}
# More than a float holds.
HUGE = 10**400

numbers = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-1000, 1000) | st.just(HUGE)
leaves = st.none() | st.booleans() | numbers | st.text(max_size=5)
documents = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@given(documents)
def test_every_answer_is_what_it_is(document: Any) -> None:
    assert list(differences(document, document, 0.0)) == []


@given(st.dictionaries(st.text(max_size=3), leaves, min_size=1, max_size=3), st.text(min_size=4, max_size=6), leaves)
def test_an_answer_may_hold_more_than_is_expected_and_never_less(
    document: dict[str, Any], key: str, value: Any
) -> None:
    assert list(differences(document, {**document, key: value}, 0.0)) == []
    assert list(differences({**document, key: value}, document, 0.0)) == [f"{key} is missing"]


@pytest.mark.parametrize(
    ("expected", "answer", "said"),
    [
        ({"digit": 7}, {"digit": 6}, "digit is 6, not 7 within 0.1"),
        ({"digit": 7}, {"digit": "7"}, 'digit is "7", not 7'),
        ({"ok": True}, {"ok": 1}, "ok is 1, not true"),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 2.2]}}, "a.b[1] is 2.2, not 2 within 0.1"),
        ({"a": [1]}, {"a": [1, 2]}, "a has 2 elements, not 1"),
        ({"a": 1}, [1], "the answer is [1], not an object"),
        ([1.0], [float("nan")], "[0] is NaN, not 1.0 within 0.1"),
        pytest.param({"digit": 7}, {"digit": HUGE}, f"digit is {str(HUGE)[:57]}..., not 7 within 0.1", id="huge"),
        pytest.param(
            {"digit": HUGE}, {"digit": 7.5}, f"digit is 7.5, not {str(HUGE)[:57]}... within 0.1", id="not huge"
        ),
    ],
)
def test_a_wrong_answer_is_told_with_its_place(expected: Any, answer: Any, said: str) -> None:
    assert list(differences(expected, answer, 0.1)) == [said]


def test_numbers_may_differ_by_the_tolerance() -> None:
    assert judge(PROBE, 200, json.dumps(RIGHT).encode(), 0.01).ok
    assert not judge(PROBE, 200, json.dumps(RIGHT | {"scores": [0.2, 0.8]}).encode(), 0.01).ok


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, b"{}", "HTTP 500 from /infer"),
        (200, b"<html>", "the answer is not JSON"),
        pytest.param(200, b" " * (ANSWER_LIMIT + 1), "more than", id="long"),
        pytest.param(200, b"[" * 100_000, "the answer is nested too deeply to be compared", id="deep"),
    ],
)
def test_what_is_no_answer_is_told(status: int, body: bytes, said: str) -> None:
    verdict = judge(PROBE, status, body, 0.01)
    assert (verdict.ok, said in verdict.said) == (False, True)


def test_a_right_answer_that_comes_too_late_is_not_ready() -> None:
    quick = InferenceProbe("http", "/infer", b"", expect="{}", latency=0.2)
    assert judge(quick, 200, b"{}", 0.1).ok
    late = judge(quick, 200, b"{}", 0.3)
    assert (late.ok, late.said) == (False, "the right answer took 300 ms, more than 200 ms")


class Model(BaseHTTPRequestHandler):
    """Answers as its server's `answer` says, after the first `quick` bytes one by one; notes what it was asked."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Content-Type"], body))  # type: ignore[attr-defined]
        content = json.dumps(self.server.answer).encode()  # type: ignore[attr-defined]
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        quick = min(self.server.quick, len(head + content))  # type: ignore[attr-defined]
        with contextlib.suppress(ConnectionError):
            self.wfile.write((head + content)[:quick])
            for byte in (head + content)[quick:]:
                self.server.closing.wait(0.05)  # type: ignore[attr-defined]
                self.wfile.write(bytes([byte]))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


@pytest.fixture
def model() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.asked, server.answer, server.quick, server.closing = [], RIGHT, 1_000_000, threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


async def never(command: tuple[str, ...], timeout: float) -> Any:
    raise AssertionError("no command is run")


async def test_the_sample_is_sent_as_it_is_and_a_right_answer_is_a_yes(model: Any) -> None:
    observed = make_observed(addresses=(("http", model.server_address),))
    answer = await ask(Check(PROBE), observed, never)
    assert (answer.ok, answer.said.startswith("the model answers as expected, in ")) == (True, True)
    assert model.asked == [("/infer", "application/json", b'{"x": 1}')]
    model.answer = {"digit": 3}
    answer = await ask(Check(PROBE), observed, never)
    assert (answer.ok, answer.said) == (
        False,
        "the model answers otherwise than expected: digit is 3, not 7 within 0.05",
    )


async def test_a_port_that_nothing_listens_on_is_a_no(model: Any) -> None:
    address = model.server_address
    model.shutdown()
    model.server_close()
    answer = await ask(Check(PROBE), make_observed(addresses=(("http", address),)), never)
    assert (answer.ok, answer.said) == (False, "connection refused")


@pytest.mark.parametrize("quick", [5, 45], ids=["head", "body"])
def test_an_answer_that_comes_byte_by_byte_is_given_up_in_time(model: Any, quick: int) -> None:
    model.quick = quick
    host, port = model.server_address
    with pytest.raises(TimeoutError):
        infer(PROBE, host, port, timeout=0.3)
    assert len(model.asked) == 1
