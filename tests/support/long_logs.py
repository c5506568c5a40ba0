"""A workload that writes more than is kept of its log, no faster than it is read."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

from edge_agent.runtime.backend import Handle, LogLine
from tests.contract.machine import HasBackend, inside

PARTS, LINES, WIDTH = 6, 10_000, 400


def writes_in_parts() -> str:
    """Shell commands that write PARTS parts of LINES numbered lines, each part once the one before was read."""
    part = f'for (n = (p - 1) * {LINES} + 1; n <= p * {LINES}; n++) printf "%d %{WIDTH}s\\n", n, "x"'
    waits = "while [ ! -e /tmp/read-$p ]; do sleep 0.02; done"
    return f"for p in $(seq 1 {PARTS}); do awk -v p=$p 'BEGIN {{ {part} }}'; {waits}; done; "


async def read_in_parts(machine: HasBackend, handle: Handle, lines: AsyncIterator[LogLine]) -> list[int]:
    """The numbers of all lines that a follower got until the last one."""
    numbers: list[int] = []
    async with asyncio.timeout(200):
        async for line in lines:
            numbers.append(int(line.text.split()[0]))
            if numbers[-1] % LINES == 0:
                await inside(machine, handle, f"touch /tmp/read-{numbers[-1] // LINES}")
            if numbers[-1] == PARTS * LINES:
                break
    return numbers


def breaks(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Where the next number is not one more. To compare long lists whole would print both."""
    return [(a, b) for a, b in pairwise(numbers) if b != a + 1]
