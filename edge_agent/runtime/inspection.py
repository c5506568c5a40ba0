"""What a state folder holds, for `longshore-edge-agent status`. Reads only; the agent may run beside it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from google.protobuf.message import DecodeError

from edge_agent.runtime.identity import holder, load_identity
from edge_agent.runtime.settings import AgentSettings
from longshore.v1 import agent_pb2


def describe_state(state_dir: Path) -> Iterator[str]:
    """Lines for people. Raises NotEnrolled, InvalidIdentity."""
    identity = load_identity(state_dir)
    yield f"device       {identity.device_name} ({identity.device_id})"
    yield f"controller   {identity.agent_address}"
    yield f"broker       {identity.broker_address}"
    yield f"agent        {'running' if holder(state_dir) else 'not running'}"
    yield from _desired(AgentSettings(state_dir=state_dir).database_file)


def _desired(path: Path) -> Iterator[str]:
    try:
        desired = _read(path)
    except (sqlite3.Error, DecodeError) as error:
        yield f"desired      cannot be read: {error}"
        return
    if desired is None:
        yield "desired      nothing was fetched yet"
        return
    yield f"desired      generation {desired.generation}, {len(desired.workloads)} workload(s)"
    for entry in desired.workloads:
        workload, wish = entry.workload, " (stopped)" if entry.stopped else ""
        project = f"{workload.project.user_id}/{workload.project.project_id}"
        yield f"  {project}/{workload.name} revision {workload.revision}{wish}"


def _read(path: Path) -> agent_pb2.DesiredState | None:
    if not path.exists():
        return None
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        row = connection.execute("SELECT body FROM desired").fetchone()
    return agent_pb2.DesiredState.FromString(row[0]) if row else None
