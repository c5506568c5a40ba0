"""Keeps the facts of the machine true: read again now and then, and when the backend becomes another one."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from edge_agent.runtime.facts.accelerators import accelerators
from edge_agent.runtime.facts.found import NVIDIA, Accelerator
from edge_agent.runtime.facts.nvidia import has_cards, node_of
from edge_agent.runtime.facts.nvml import Gpu, read_gpus
from edge_agent.runtime.facts.telling import ROOT, device_facts
from edge_agent.runtime.threads import in_thread
from longshore.v1 import device_pb2

log = structlog.get_logger()

PERIOD = 600.0
# Free space is told again no sooner than this after a change of it was told: on a disk in use each look finds another,
# and each telling costs a few hundred bytes. That a disk is nearly full is told at once, elsewhere.
FREE_PERIOD = 7200.0
# A driver that takes longer is taken to hang.
PATIENCE = 60.0


class FactsKeeper:
    """`facts` and `accelerators` are what was read last; from the beginning all that files tell. `changed` is called
    when something else was read. `folders` answers where the agent writes."""

    def __init__(
        self,
        agent_version: str,
        folders: Callable[[], Iterable[Path]],
        changed: Callable[[], None],
        *,
        root: Path = ROOT,
        read_gpus: Callable[[], Sequence[Gpu]] = read_gpus,
        period: float = PERIOD,
        free_period: float = FREE_PERIOD,
        patience: float = PATIENCE,
    ) -> None:
        self._version = agent_version
        self._folders = folders
        self._changed = changed
        self._root = root
        self._read_gpus = read_gpus
        self._period = period
        self._free_period = free_period
        self._free_told = -free_period
        self._patience = patience
        self._gpus: Sequence[Gpu] = ()
        self._hangs = False
        self._soon = asyncio.Event()
        self.accelerators: tuple[Accelerator, ...] = accelerators(root)
        self.facts: device_pb2.DeviceFacts = self._tell(None)

    def look_soon(self) -> None:
        """Something that facts depend on has changed."""
        self._soon.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            self._soon.clear()
            self.accelerators = await self._look()
            facts = self._steady(self._tell(self.facts))
            if facts != self.facts:
                self.facts = facts
                self._changed()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._period):
                    await self._soon.wait()

    def _tell(self, before: device_pb2.DeviceFacts | None) -> device_pb2.DeviceFacts:
        return device_facts(self._version, self._root, folders=self._folders(), found=self.accelerators, before=before)

    def _steady(self, facts: device_pb2.DeviceFacts) -> device_pb2.DeviceFacts:
        """The same with the free space that was told last, where that was a short time ago."""
        known, now = self.facts.disks, time.monotonic()
        if facts.disks != known:
            if now < self._free_told + self._free_period and [each.path for each in facts.disks] == [
                each.path for each in known
            ]:
                del facts.disks[:]
                facts.disks.extend(known)
            else:
                self._free_told = now
        return facts

    async def _look(self) -> tuple[Accelerator, ...]:
        """The driver of GPUs is asked only for those of which it has not told yet."""
        found = accelerators(self._root, self._gpus)
        cards = {one.nodes for one in found if one.kind == NVIDIA}
        if has_cards(self._root) and not (cards and cards <= {node_of(gpu) for gpu in self._gpus}):
            self._gpus = await self.ask_gpus() or self._gpus
            found = accelerators(self._root, self._gpus)
        return found

    async def ask_gpus(self) -> Sequence[Gpu]:
        """What NVIDIA's driver says now; nothing where it has hung before."""
        if self._hangs:
            return ()
        try:
            async with asyncio.timeout(self._patience):
                return await in_thread(self._read_gpus)
        except TimeoutError:
            log.error("gpu_driver_hangs", seconds=self._patience)
            self._hangs = True
            return ()
