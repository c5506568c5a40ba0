"""Keeping the desired state of the device the newest one that the controller has."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog
from google.protobuf.message import DecodeError

from edge_agent.runtime.backoff import Backoff, jittered
from edge_agent.runtime.controller_link import ControllerRefused, ControllerUnavailable
from edge_agent.runtime.database import StorageError
from edge_agent.runtime.fail_points import reach
from longshore.v1 import mqtt_pb2
from longshore.v1.agent_pb2 import DesiredState

log = structlog.get_logger()

# After the broker was lost, the first look at the controller comes within so many seconds.
FIRST_POLL = (1.0, 4.0)
RETRY_FIRST = 1.0
RETRY_CAP = 30.0


class DesiredSource(Protocol):
    async def get_desired(self, held_generation: int) -> DesiredState | None:
        """The newest one, or None where that is the one which is held."""
        ...


class DesiredStore(Protocol):
    def desired(self) -> bytes | None: ...

    def store_desired(self, desired: bytes) -> bool: ...


@dataclass(frozen=True)
class SyncTimes:
    """Seconds between two looks: while the broker is out of reach, and while all is well."""

    poll: float
    resync: float


class DesiredSync:
    """Fetches, stores durably, then hands over to `apply`, so that what is acted on is never forgotten.

    `reached` is called whenever the controller has answered.
    """

    def __init__(
        self,
        device_id: str,
        source: DesiredSource,
        store: DesiredStore,
        apply: Callable[[DesiredState], None],
        times: SyncTimes,
        reached: Callable[[], None] = lambda: None,
    ) -> None:
        self._device_id = device_id
        self._source = source
        self._store = store
        self._apply = apply
        self._times = times
        self._reached = reached
        self._wake = asyncio.Event()
        self._backoff = Backoff(RETRY_FIRST, min(RETRY_CAP, times.poll))
        self._broker_connected = False
        self._due = time.monotonic()
        self.held_generation = 0
        self._known_generation = 0

    def apply_stored(self) -> None:
        """What was stored before is applied, with no network at all."""
        raw = self._store.desired()
        if raw is None:
            return
        try:
            desired = DesiredState.FromString(raw)
        except DecodeError:
            log.exception("stored_desired_state_unreadable")
            return
        if desired.device_id == self._device_id:
            self._hold(desired)

    def noticed(self, notice: mqtt_pb2.DesiredNotice) -> None:
        """The controller says which generation is the newest. An older one than is held tells of a controller that
        was restored from a backup: it counts on from what is held once it is asked."""
        self._known_generation = notice.generation
        if notice.generation != self.held_generation:
            self._look_within(0)

    def broker_connected(self) -> None:
        self._broker_connected = True
        self._look_within(0)

    def broker_lost(self) -> None:
        self._broker_connected = False
        self._look_within(random.uniform(*FIRST_POLL))

    async def run(self) -> None:
        """For ever: looks when it is due, and sooner when it is woken."""
        while True:
            await self._until_due()
            delay = self._times.resync if self._broker_connected else self._times.poll
            self._due = time.monotonic() + jittered(delay)
            if await self._fetch():
                self._backoff.reset()
            else:
                self._look_within(self._backoff.next())

    def _look_within(self, seconds: float) -> None:
        self._due = min(self._due, time.monotonic() + seconds)
        self._wake.set()

    async def _until_due(self) -> None:
        while (left := self._due - time.monotonic()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _fetch(self) -> bool:
        """Whether the newest generation that is known of is held now."""
        try:
            desired = await self._source.get_desired(self.held_generation)
        except ControllerUnavailable as error:
            log.warning("controller_unavailable", error=str(error))
            return False
        except ControllerRefused as error:
            log.error("controller_refuses", error=str(error))
            return False
        self._reached()
        try:
            if desired is not None:
                self._accept(desired)
        except StorageError as error:
            log.error("desired_state_not_stored", error=str(error))
            return False
        return self.held_generation >= self._known_generation

    def _accept(self, desired: DesiredState) -> None:
        if desired.device_id != self._device_id:
            log.error("desired_state_of_another_device", device=self._device_id, other=desired.device_id)
            return
        reach("desired.received")
        if self._store.store_desired(desired.SerializeToString(deterministic=True)):
            log.info("desired_state_stored", generation=desired.generation, workloads=len(desired.workloads))
            reach("desired.stored")
            self._hold(desired)

    def _hold(self, desired: DesiredState) -> None:
        self.held_generation = desired.generation
        self._apply(desired)
