"""Workloads and instances as tests of the agent need them."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from edge_agent.runtime.backend import Handle, Observed, Phase
from edge_agent.runtime.model import Artifact, Check, Port, TcpProbe, Workload
from edge_agent.runtime.record import Moment


def digest_of(revision: int, deployment_id: str = "d1") -> str:
    return f"sha256:{deployment_id}-{revision}"


def make_workload(revision: int = 1, deployment_id: str = "d1", **changes: Any) -> Workload:
    """A service with one port that is ready when it accepts connections."""
    given: dict[str, Any] = {
        "deployment_id": deployment_id,
        "revision": revision,
        "name": f"name-{deployment_id}",
        "user_id": "alice",
        "project_id": "digits",
        "artifact": Artifact("registry.example/alice/digits", digest_of(revision, deployment_id), "linux/amd64"),
        "readiness": Check(TcpProbe("http"), period=0.1, timeout=1.0, deadline=5.0),
        "ports": (Port("http", 8000),),
        "stop_grace": 0.2,
    }
    return Workload(**(given | changes))


def make_observed(
    revision: int = 1, number: int = 1, phase: Phase = Phase.RUNNING, deployment_id: str = "d1", **changes: Any
) -> Observed:
    """An instance of `make_workload(revision, deployment_id)`; a greater number is newer."""
    given: dict[str, Any] = {
        "handle": Handle(1, f"i{number}"),
        "deployment_id": deployment_id,
        "revision": revision,
        "artifact_digest": digest_of(revision, deployment_id),
        "phase": phase,
        "started_at": 1000.0 + number,
    }
    if phase is Phase.EXITED:
        given |= {"finished_at": 2000.0 + number, "exit_code": 1}
    return Observed(**(given | changes))


def at(seconds: float) -> Moment:
    """So long after an arbitrary beginning, by both clocks."""
    return Moment(seconds, 1_700_000_000.0 + seconds)


async def until(condition: Callable[[], bool], *, seconds: float = 10, why: str = "") -> None:
    """Returns as soon as `condition` is true; the event loop runs on meanwhile."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s{': ' if why else ''}{why}")
        await asyncio.sleep(0.005)
