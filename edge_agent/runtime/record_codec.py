"""Records as bytes for the agent's database, and back. What lives in memory only is left out."""

import base64
import json
from dataclasses import replace
from typing import Any

from google.protobuf.message import DecodeError

from edge_agent.runtime.backend import Handle
from edge_agent.runtime.convert import workload_from_pb, workload_to_pb
from edge_agent.runtime.model import Workload
from edge_agent.runtime.record import Course, Failure, Moment, Record, Stage, Verdict, backoff
from longshore.v1 import types_pb2

VERSION = 1


class UnreadableRecord(ValueError):
    """A stored record cannot be understood; the deployment begins anew."""


def encode(record: Record) -> bytes:
    """Two records that are equally durable encode alike."""
    body = {
        "version": VERSION,
        "courses": [_course(course) for course in record.courses],
        "fallback": _workload(record.fallback),
        "previous": _workload(record.previous),
    }
    return json.dumps(body, sort_keys=True).encode()


def decode(deployment_id: str, body: bytes, moment: Moment) -> Record:
    """Delays go on by the wall clock, but never longer than they can have been: the clock may have jumped.

    Raises UnreadableRecord.
    """
    try:
        data = json.loads(body)
        if data["version"] != VERSION:
            raise UnreadableRecord(f"version {data['version']} is not known to this agent")
        return Record(
            deployment_id,
            tuple(_read_course(course, moment) for course in data["courses"]),
            _read_workload(data["fallback"]),
            _read_workload(data.get("previous")),
        )
    except (ValueError, KeyError, TypeError, DecodeError) as error:
        raise UnreadableRecord(f"{type(error).__name__}: {error}") from error


def _course(course: Course) -> dict[str, Any]:
    failure = course.failure
    return {
        "revision": course.revision,
        "starts": course.starts,
        "attempts": course.attempts,
        "next_try_at": course.next_try_at,
        "failure": failure and [failure.stage, failure.reason, failure.message, failure.final, failure.last_lines],
        "exit_code": course.exit_code,
        "verdict": course.verdict,
        "settled": _handle(course.settled),
        "proven": _handle(course.proven),
    }


def _read_course(data: dict[str, Any], moment: Moment) -> Course:
    next_try_at = float(data["next_try_at"])
    attempts = int(data["attempts"])
    delay = min(max(0.0, next_try_at - moment.wall), backoff(attempts, 1.0))
    course = Course(
        revision=int(data["revision"]),
        starts=int(data["starts"]),
        attempts=attempts,
        failure=_read_failure(data["failure"]),
        exit_code=data["exit_code"],
        verdict=Verdict(data["verdict"]),
        settled=_read_handle(data["settled"]),
        proven=_read_handle(data["proven"]),
    )
    return replace(course, next_try=moment.monotonic + delay, next_try_at=moment.wall + delay) if delay else course


def _read_failure(data: list[Any] | None) -> Failure | None:
    if data is None:
        return None
    stage, reason, message, final, last_lines = data
    return Failure(Stage(stage), reason, message, final, tuple(last_lines))


def _handle(handle: Handle | None) -> list[int | str] | None:
    return [handle.version, handle.value] if handle else None


def _read_handle(data: list[Any] | None) -> Handle | None:
    return Handle(data[0], data[1]) if data else None


def _workload(workload: Workload | None) -> str | None:
    return base64.b64encode(workload_to_pb(workload).SerializeToString()).decode() if workload else None


def _read_workload(data: str | None) -> Workload | None:
    return workload_from_pb(types_pb2.Workload.FromString(base64.b64decode(data))) if data else None
