"""The inference check: a sample request to the served model, and whether the answer is the expected one."""

import http.client
import json
import math
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge_agent.runtime.model import InferenceProbe

# Longer answers are no answers to a sample.
ANSWER_LIMIT = 4 * 1024 * 1024


@dataclass(frozen=True)
class Verdict:
    """`said` is a sentence for people: that the model answers as expected, or how it does not."""

    ok: bool
    said: str


class _TimedSocket(socket.socket):
    """Gives up at `end` (monotonic), however many bytes come one by one until then."""

    end = 0.0

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self._give_up_in_time()
        return super().recv_into(*arguments, **options)

    def sendall(self, *arguments: Any, **options: Any) -> None:
        self._give_up_in_time()
        super().sendall(*arguments, **options)

    def _give_up_in_time(self) -> None:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)


class _TimedConnection(http.client.HTTPConnection):
    """`timeout` is for the whole of what is asked and answered, not for each of its bytes."""

    def connect(self) -> None:
        end = time.monotonic() + float(self.timeout or 0)
        super().connect()
        self.sock = _TimedSocket(fileno=self.sock.detach())
        self.sock.end = end


def infer(probe: InferenceProbe, host: str, port: int, timeout: float) -> Verdict:
    """Asks once. Blocks, for `timeout` seconds at most. Raises OSError where nothing answers in time."""
    begun = time.monotonic()
    connection = _TimedConnection(host, port, timeout=timeout)
    try:
        connection.request("POST", probe.path, probe.request, {"Content-Type": probe.content_type})
        answer = connection.getresponse()
        body = answer.read(ANSWER_LIMIT + 1)
    except http.client.HTTPException as error:
        return Verdict(False, f"what answers on port {probe.port} does not speak HTTP: {type(error).__name__}")
    finally:
        connection.close()
    return judge(probe, answer.status, body, time.monotonic() - begun)


def judge(probe: InferenceProbe, status: int, body: bytes, seconds: float) -> Verdict:
    """Whether an answer is the expected one. Pure."""
    if not 200 <= status < 300:
        return Verdict(False, f"HTTP {status} from {probe.path}")
    if len(body) > ANSWER_LIMIT:
        return Verdict(False, f"the answer has more than {ANSWER_LIMIT} bytes")
    try:
        answer = json.loads(body)
        difference = next(differences(json.loads(probe.expect), answer, probe.tolerance), None)
    except RecursionError:
        return Verdict(False, "the answer is nested too deeply to be compared")
    except ValueError:
        return Verdict(False, "the answer is not JSON")
    if difference is not None:
        return Verdict(False, f"the model answers otherwise than expected: {difference}")
    if probe.latency and seconds > probe.latency:
        return Verdict(False, f"the right answer took {seconds * 1000:.0f} ms, more than {probe.latency * 1000:.0f} ms")
    return Verdict(True, f"the model answers as expected, in {seconds * 1000:.0f} ms")


def differences(expected: Any, answer: Any, tolerance: float, path: str = "") -> Iterator[str]:
    """Where the answer does not hold what is expected, as `longshore.v1.InferenceProbe.expect` says."""
    where = path or "the answer"
    if isinstance(expected, dict):
        yield from _mapping(expected, answer, tolerance, path, where)
    elif isinstance(expected, list):
        yield from _list(expected, answer, tolerance, path, where)
    elif _is_number(expected) and _is_number(answer):
        if not _near(expected, answer, tolerance):
            by = f" within {tolerance:g}" if tolerance else ""
            yield f"{where} is {_short(answer)}, not {_short(expected)}{by}"
    elif type(expected) is not type(answer) or expected != answer:
        yield f"{where} is {_short(answer)}, not {_short(expected)}"


def _mapping(expected: dict[str, Any], answer: Any, tolerance: float, path: str, where: str) -> Iterator[str]:
    if not isinstance(answer, dict):
        yield f"{where} is {_short(answer)}, not an object"
        return
    for key, value in expected.items():
        inside = f"{path}.{key}" if path else key
        if key not in answer:
            yield f"{inside} is missing"
        else:
            yield from differences(value, answer[key], tolerance, inside)


def _list(expected: list[Any], answer: Any, tolerance: float, path: str, where: str) -> Iterator[str]:
    if not isinstance(answer, list):
        yield f"{where} is {_short(answer)}, not a list"
    elif len(answer) != len(expected):
        yield f"{where} has {len(answer)} elements, not {len(expected)}"
    else:
        for index, (value, found) in enumerate(zip(expected, answer, strict=True)):
            yield from differences(value, found, tolerance, f"{path}[{index}]")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _near(expected: float, answer: float, tolerance: float) -> bool:
    try:
        expected, answer = float(expected), float(answer)
    except OverflowError:
        # Whole numbers beyond any float.
        return expected == answer
    return expected == answer or (math.isfinite(answer) and abs(expected - answer) <= tolerance)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
