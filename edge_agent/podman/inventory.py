"""The containers of one agent as last seen, kept true with as few questions to Podman as possible."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from edge_agent.podman import container as containers
from edge_agent.podman import machine, spec
from edge_agent.podman.connection import Connection
from edge_agent.podman.container import Container
from edge_agent.podman.errors import ApiError, InspectFailed
from edge_agent.runtime.backend import INSTANCE_DAMAGED, BackendError, BackendUnavailable, Observed
from edge_agent.runtime.deaths import DeathWatch

# While nothing dies and no verb is called, Podman is not asked again before this many seconds.
LIST_AGE = 120.0
# How long Podman's monitor may take to write down how a dead container ended.
SETTLE_SECONDS = 3.0
KILLED = 128 + 9

log = structlog.get_logger()


class Inventory:
    """For one event loop. Whether a container runs is asked of the kernel each time, never remembered."""

    def __init__(self, connection: Connection, owner: str) -> None:
        self.deaths = DeathWatch()
        self._connection = connection
        self._owner = owner
        self._known: dict[str, Container] = {}
        self._reasons: dict[str, str] = {}
        self._starting: set[str] = set()
        self._forgotten: set[str] = set()
        self._set_aside: dict[str, str] = {}
        self._listed_at = float("-inf")
        self._listing = asyncio.Lock()

    async def containers(self) -> Sequence[Container]:
        """All of this agent's containers."""
        async with self._listing:
            if time.monotonic() - self._listed_at > LIST_AGE or self._something_ended():
                await self._list_again()
        return list(self._known.values())

    async def find(self, container_id: str) -> Container | None:
        """One of this agent's containers; None where there is none, or where it belongs to another agent."""
        found = self._known.get(container_id) or await self._inspect(container_id)
        return found if found is not None and found.labels.get(f"{spec.LABEL}.owner") == self._owner else None

    def begin_start(self, container_id: str) -> None:
        self._starting.add(container_id)

    async def finish_start(self, container_id: str) -> None:
        """Raises ApiError where the container did not start, whatever Podman answered. It may have ended since."""
        self._starting.discard(container_id)
        container = await self._inspect(container_id)
        if container is None or container.state in containers.UNSTARTED:
            state = container.state if container else "gone"
            raise ApiError(500, "start", f"podman says that it started the container, but it is {state}")
        self._remember(container)

    def forget(self, container_id: str) -> None:
        """The container was removed."""
        self._starting.discard(container_id)
        self._forgotten.add(container_id)
        self._reasons.pop(container_id, None)
        self._known.pop(container_id, None)

    def runs(self, container: Container) -> bool:
        return container.claims_to_run and machine.runs(container.pid, container.id)

    def observed(self, container: Container) -> Observed:
        # Of what has ended this moment nobody knows yet how; the next look does.
        ending = container.claims_to_run and not container.unwatched
        runs, starting = self.runs(container) or ending, container.id in self._starting
        reason = "" if runs or starting else self._exit_reason(container)
        return containers.observed(container, runs=runs, starting=starting, exit_reason=reason)

    def _exit_reason(self, container: Container) -> str:
        """Learned once, since the kernel's log forgets."""
        if not container.ended:
            return _exit_reason(container)
        if container.id not in self._reasons:
            self._reasons[container.id] = _exit_reason(container)
        return self._reasons[container.id]

    def _something_ended(self) -> bool:
        return any(container.claims_to_run and not self.runs(container) for container in self._known.values())

    async def _list_again(self) -> None:
        before, begun = set(self._known), time.monotonic()
        self._forgotten.clear()
        found = await asyncio.gather(*(self._look(entry) for entry in await self._entries()))
        for container in found:
            if container is not None and container.id not in self._forgotten:
                self._remember(container)
        for gone in before - {container.id for container in found if container is not None}:
            self._known.pop(gone, None)
        self._listed_at = begun

    async def _entries(self) -> Sequence[Mapping[str, Any]]:
        filters = json.dumps({"label": [spec.owner_label(self._owner)]})
        try:
            entries: Sequence[Mapping[str, Any]] | None = await self._connection.call(
                "GET", "containers/json", params={"all": "true", "filters": filters}
            )
        except ApiError as error:
            raise BackendUnavailable("PodmanUnavailable", str(error)) from error
        return entries or ()

    async def _look(self, entry: Mapping[str, Any]) -> Container | None:
        """As `_refresh`. What cannot be read must not hide the others: where Podman cannot, it is damaged; where this
        agent cannot, it is left alone, and stays what it was last known to be, if anything."""
        container_id = str(entry["Id"])
        try:
            try:
                container = await self._refresh(container_id)
            except InspectFailed as error:
                container = self._damaged(entry, error)
            if container is not None:
                containers.observed(container, runs=False, starting=False)
        except BackendError:
            raise
        except Exception as error:  # noqa: BLE001 - told below
            self._tell_set_aside(container_id, f"{type(error).__name__}: {error}")
            known = self._known.get(container_id)
            # Nobody will be told how it ended, as long as it cannot be read.
            gone = known is not None and known.claims_to_run and not self.runs(known)
            return replace(known, unwatched=True) if known is not None and gone else known
        self._set_aside.pop(container_id, None)
        return container

    def _damaged(self, entry: Mapping[str, Any], error: BackendError) -> Container:
        """What is known of a container whose storage is damaged. One that runs is not disturbed by that."""
        container_id = str(entry["Id"])
        known = self._known.get(container_id)
        if known is not None and self.runs(known):
            return known
        log.error("container_damaged", container=container_id, owner=self._owner, why=error.message)
        return containers.parse_listed(entry, runs=machine.runs(int(entry.get("Pid") or 0), container_id))

    def _tell_set_aside(self, container_id: str, why: str) -> None:
        if self._set_aside.get(container_id) != why:
            self._set_aside[container_id] = why
            log.error("container_set_aside", container=container_id, owner=self._owner, why=why)

    async def _refresh(self, container_id: str) -> Container | None:
        """The container as it is now. What ended has nothing more to tell and is not asked again."""
        known = self._known.get(container_id)
        if known is not None and (self.runs(known) or known.ended):
            return known
        deadline = time.monotonic() + SETTLE_SECONDS
        watched = True
        container = await self._inspect(container_id)
        while container is not None and container.claims_to_run and not self.runs(container):
            # Its process is gone; the monitor is about to write down how it ended, or has done so before it went too.
            if not watched or time.monotonic() > deadline:
                return replace(container, unwatched=True)
            watched = machine.exists(container.monitor_pid)
            await asyncio.sleep(0.02)
            container = await self._inspect(container_id)
        return container

    def _remember(self, container: Container) -> None:
        """Keeps the newer of two views: a container is made, runs and ends, and never goes back."""
        known = self._known.get(container.id)
        if known is not None and known.stage > container.stage:
            return
        self._known[container.id] = container
        if container.claims_to_run:
            self.deaths.add(container.id, lambda: machine.open_process(container.pid, container.id))

    async def _inspect(self, container_id: str) -> Container | None:
        try:
            return containers.parse(await self._connection.call("GET", f"containers/{container_id}/json"))
        except ApiError as error:
            if error.status == 404:
                return None
            raise InspectFailed(str(error)) from error


def _exit_reason(container: Container) -> str:
    """Why it ended, where more is known than the exit code."""
    if container.damaged:
        return INSTANCE_DAMAGED
    if container.state in containers.UNSTARTED:
        return "PowerLost" if container.started_at else ""
    if container.unwatched or container.exit_code == containers.UNKNOWN_CODE:
        return "MonitorLost"
    killed = container.exit_code == KILLED and container.memory_limit
    if container.out_of_memory or (killed and machine.ran_out_of_memory(container.id)):
        return "OutOfMemory"
    return ""
