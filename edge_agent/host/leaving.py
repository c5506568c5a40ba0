"""`leave`: takes off a machine what its agent brought there."""

import asyncio
import shutil
from dataclasses import dataclass

from edge_agent.host.program import Program
from edge_agent.runtime.identity import Identity
from edge_agent.runtime.settings import AgentSettings

GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class Left:
    """`removed` instances; `untold` is empty where the controller knows of it, else why it does not."""

    removed: int
    untold: str


def leave(program: Program, settings: AgentSettings, identity: Identity) -> Left:
    """Afterwards nothing that this agent ran or fetched is left, nor its state, and the controller knows it as a device
    no more, where it can be reached.

    No agent may run on the state folder: the caller holds its lock. Raises BackendError where something stays; the
    identity stays then too, so that it can be tried again.
    """
    removed = asyncio.run(_remove_all(program, settings, identity))
    # Imported when nothing is left that forks: gRPC's handlers for forks can abort a child.
    from edge_agent.runtime.farewell import tell_controller

    untold = tell_controller(identity)
    shutil.rmtree(settings.state_dir)
    return Left(removed, untold)


async def _remove_all(program: Program, settings: AgentSettings, identity: Identity) -> int:
    backend = program.backend(settings, identity, _no_credentials)
    try:
        instances = await backend.list()
        for seen in instances:
            await backend.stop(seen.handle, GRACE_SECONDS)
            await backend.remove(seen.handle)
        await backend.forget(None)
        await backend.prune(frozenset())
        return len(instances)
    finally:
        await backend.close()


async def _no_credentials() -> tuple[str, str]:
    raise RuntimeError("nothing is fetched by an agent that leaves")
