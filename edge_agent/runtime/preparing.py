"""What is being prepared, and who removes beside that."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Preparing:
    """Digests of what is being prepared. For one event loop."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        # Nothing begins to be made while something is removed.
        self._pruning = asyncio.Lock()

    @property
    def digests(self) -> frozenset[str]:
        return frozenset(self._counts)

    @asynccontextmanager
    async def of(self, digest: str) -> AsyncIterator[None]:
        """It is being prepared in the block, which begins once nobody prunes."""
        async with self._pruning:
            self._counts[digest] += 1
        try:
            yield
        finally:
            self._counts[digest] -= 1
            if not self._counts[digest]:
                del self._counts[digest]

    @asynccontextmanager
    async def pruning(self) -> AsyncIterator[None]:
        """Nothing more begins to be prepared in the block."""
        async with self._pruning:
            yield
