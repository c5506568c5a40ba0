"""The process of a running agent: what it logs, what it runs on, and how it ends."""

import asyncio
from collections.abc import Callable

import structlog

from edge_agent.runtime.agent import BackendFactory, run_agent
from edge_agent.runtime.database import AgentDatabase, StorageError
from edge_agent.runtime.identity import Identity, load_identity
from edge_agent.runtime.settings import AgentSettings

log = structlog.get_logger()


def run_process(
    settings: AgentSettings,
    identity: Identity,
    make_factory: Callable[[AgentSettings, Identity], BackendFactory],
) -> int:
    """Runs until a signal asks for the end: 0. A part that dies takes the process with it: 1, with a logged traceback;
    whoever supervises the process starts it again, and what it ran runs on."""
    try:
        database = AgentDatabase(settings.database_file)
    except StorageError as error:
        log.error("database_not_usable", error=str(error))
        return 1
    try:
        while asyncio.run(run_agent(settings, identity, make_factory(settings, identity), database)):
            identity = load_identity(settings.state_dir)
    except Exception:  # logged with its traceback
        log.exception("agent_died", device=identity.device_id)
        return 1
    finally:
        database.close()
    return 0
