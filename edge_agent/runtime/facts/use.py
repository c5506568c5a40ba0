"""How busy accelerators are, where their drivers tell."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edge_agent.runtime import kernel_files
from edge_agent.runtime.facts.found import NVIDIA, Accelerator
from edge_agent.runtime.facts.keeper import FactsKeeper
from edge_agent.runtime.facts.nvidia import node_of

# "NPU load:  Core0: 12%, Core1:  8%," and "45@400000000Hz"
PERCENT, AT_CLOCK = re.compile(r"\b(\d{1,3})\s*%"), re.compile(r"\s*(\d{1,3})@")


@dataclass(frozen=True)
class Use:
    """Of the whole accelerator, whoever uses it. Memory of its own only."""

    busy_percent: int
    memory_kib: int = 0


class AcceleratorUses:
    """Asks the drivers of the accelerators that `keeper` knows."""

    def __init__(self, keeper: FactsKeeper) -> None:
        self._keeper = keeper

    async def given_by(self, devices: Collection[str]) -> Mapping[Accelerator, Use]:
        """Of those that a workload gets by one of these devices, where anything tells."""
        wanted = [one for one in self._keeper.accelerators if any(map(one.is_given_by, devices))]
        cards = [one for one in wanted if one.kind == NVIDIA and one.load is None]
        found = await self._of_cards(cards) if cards else {}
        for one in wanted:
            if one.load is not None and (busy := busy_percent(one)) is not None:
                found[one] = Use(busy)
        return found

    async def _of_cards(self, cards: Sequence[Accelerator]) -> dict[Accelerator, Use]:
        gpus = {node_of(gpu): gpu for gpu in await self._keeper.ask_gpus()}
        told = ((card, gpus.get(card.nodes)) for card in cards)
        return {
            card: Use(gpu.busy_percent, gpu.used_bytes // 1024)
            for card, gpu in told
            if gpu is not None and gpu.busy_percent is not None
        }


def busy_percent(accelerator: Accelerator) -> int | None:
    """By the file that its driver keeps; of several cores the mean."""
    said = kernel_files.text(accelerator.load, 1024) if accelerator.load is not None else ""
    if cores := [int(core) for core in PERCENT.findall(said)]:
        return min(100, sum(cores) // len(cores))
    if found := AT_CLOCK.match(said):
        return min(100, int(found[1]))
    number = kernel_files.NUMBER.fullmatch(said)
    if number is None:
        return None
    # Jetsons count in thousandths.
    return min(100, int(number[1]) // (10 if accelerator.kind == NVIDIA else 1))
