"""What is stored in the end, however long the database takes nothing: its disk is full, or another program holds it."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import DBAPIError, OperationalError

from controller.errors import NotStored

log = structlog.get_logger()
Result = TypeVar("Result")
# Seconds between two tries, at first and at most.
FIRST, LONGEST = 0.1, 5.0
# The lower byte of SQLite's result codes (https://www.sqlite.org/rescode.html), and what they tell people.
PASSING = {
    sqlite3.SQLITE_FULL: "its disk is full; free space on the controller's machine",
    sqlite3.SQLITE_BUSY: "another program holds it",
    sqlite3.SQLITE_PROTOCOL: "another program holds it",
    sqlite3.SQLITE_IOERR: "its disk fails",
    sqlite3.SQLITE_CANTOPEN: "its file cannot be opened",
    sqlite3.SQLITE_READONLY: "its file cannot be written",
}


class Patience:
    """Of one database. `condition`: "" while nothing waits for it, else why something does."""

    def __init__(self) -> None:
        self.condition = ""
        self._waiting = 0

    async def until_done(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """What `attempt` returns, which is called again, later and later, as long as it raises NotStored."""
        try:
            return await attempt()
        except NotStored as error:
            self._wait(error)
        try:
            return await self._try_again(attempt)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.condition = ""
                log.info("nothing waits for the database any more")

    async def _try_again(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        pause = FIRST
        while True:
            await asyncio.sleep(pause)
            pause = min(LONGEST, 2 * pause)
            try:
                return await attempt()
            except NotStored as error:
                self.condition = error.message

    def _wait(self, error: NotStored) -> None:
        if not self._waiting:
            log.error("the database takes nothing; what is to be stored waits", error=error.message)
        self._waiting += 1
        self.condition = error.message


def not_stored(error: DBAPIError) -> NotStored | None:
    """What callers are told; None where it is no trouble that passes."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        cause = PASSING.get(code & 0xFF)
    else:
        # Of another database these are what lies outside of the program.
        cause = str(error.orig) if isinstance(error, OperationalError) else None
    if cause is None:
        return None
    # A file that cannot grow is told as a failing one by some parts of SQLite.
    full = code is not None and code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    text = f"the controller's database takes nothing: {cause}; nothing was changed, try again"
    return NotStored(text, disk_full=full)
