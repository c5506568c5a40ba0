"""Tasks that are of use only if all of them succeed."""

import asyncio
from collections.abc import Sequence
from typing import Any


async def together(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    """Afterwards all of them have ended. Raises what the first one raised that failed. The others are cancelled then,
    and all are if the caller is."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
