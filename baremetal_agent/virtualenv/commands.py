"""Programs that run to their end: the installers, and what is asked of the system."""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

NOT_FOUND = 127


@dataclass(frozen=True)
class Ended:
    """`output` is what came on both streams."""

    code: int
    output: str

    @property
    def last_words(self) -> str:
        """The end of the output in one line, where programs tell the cause."""
        return " ".join(self.output.split())[-400:] or "it says nothing"


async def run(*argv: str, env: Mapping[str, str] | None = None) -> Ended:
    """Afterwards it has ended; 127 where there is no such program. Killed with all its children if the caller is
    cancelled. Answers are in English."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            # What is installed is read by other users.
            umask=0o022,
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        return Ended(NOT_FOUND, str(error))
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    return Ended(process.returncode or 0, output.decode(errors="replace"))
