"""One database behind one interface: every change is a function that runs in a transaction of its own.

SQLite by default (WAL, synchronous=FULL: what `transact` has returned survives a power cut); the statements are
those of SQLAlchemy Core, so that PostgreSQL can be named by its URL.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from controller.errors import NotStored
from controller.reserve import Reserve
from controller.store.access import AccessTable
from controller.store.build_queue import BuildQueueTable
from controller.store.builds import BuildTable
from controller.store.deployments import DeploymentTable
from controller.store.devices import DeviceTable
from controller.store.events import EventTable
from controller.store.images import ImageTable
from controller.store.keeping import KeepingTable
from controller.store.listing import ListingTable
from controller.store.patience import Patience, not_stored
from controller.store.revisions import RevisionTable
from controller.store.signals import Signal
from controller.store.tags import TagTable
from controller.store.volumes import VolumeTable
from controller.store.workloads import WorkloadTable

log = structlog.get_logger()
Result = TypeVar("Result")


class Transaction:
    """All tables in one transaction. Lives as long as the function that `Store.transact` calls."""

    def __init__(self, connection: Connection) -> None:
        self.signals: list[Signal] = []
        self.events = EventTable(connection, self.signals)
        self.access = AccessTable(connection)
        self.devices = DeviceTable(connection, self.signals)
        self.builds = BuildTable(connection, self.signals)
        self.queue = BuildQueueTable(connection)
        self.images = ImageTable(connection)
        self.tags = TagTable(connection)
        self.keeping = KeepingTable(connection)
        self.deployments = DeploymentTable(connection)
        self.revisions = RevisionTable(connection)
        self.workloads = WorkloadTable(connection)
        self.listing = ListingTable(connection)
        self.volumes = VolumeTable(connection)


class Store:
    """The database of one controller. One writer: transactions run one after another."""

    def __init__(self, engine: Engine, reserve: Reserve | None = None) -> None:
        """`reserve`: room for what frees space."""
        self._engine = engine
        self._reserve = reserve
        self._patience = Patience()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._listeners: list[Callable[[Signal], None]] = []

    def subscribe(self, listener: Callable[[Signal], None]) -> None:
        """`listener` is called on the event loop after each commit, once for each signal. It must not block."""
        self._listeners.append(listener)

    @property
    def condition(self) -> str:
        """ "" where all is stored, else why something waits to be."""
        return self._patience.condition

    async def transact(self, work: Callable[[Transaction], Result], *, frees: bool = False) -> Result:
        """Runs `work` in a transaction; afterwards its changes are durable. An exception undoes all of it. Raises
        NotStored where the database takes nothing now; `frees`: it serves to free space, and is stored on a full disk
        too.

        `work` runs in the store's thread and must not touch anything of the event loop. A caller that is cancelled
        does not hinder it: the work is done, and the listeners are told.
        """
        run = self._run_freeing if frees else self._run
        running = asyncio.get_running_loop().run_in_executor(self._executor, run, work)
        # A callback, since a caller that has left is no longer here to tell anybody.
        running.add_done_callback(self._tell)
        result, _ = await asyncio.shield(running)
        return result

    async def insist(self, work: Callable[[Transaction], Result]) -> Result:
        """As `transact`, as often as it takes until the database takes it: for what nobody can be told to try again.
        `work` may run several times, and counts once."""
        return await self.patiently(lambda: self.transact(work))

    async def patiently(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """What `attempt` returns, which is called again as long as it raises NotStored."""
        return await self._patience.until_done(attempt)

    def transact_now(self, work: Callable[[Transaction], Result]) -> Result:
        """As `transact`, for command-line tools without an event loop; tells no listener."""
        return self._run(work)[0]

    def close(self) -> None:
        """Waits for the transaction that runs, then closes the database."""
        self._executor.shutdown(wait=True)
        self._engine.dispose()

    def _tell(self, done: asyncio.Future[tuple[Any, list[Signal]]]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        for signal in dict.fromkeys(done.result()[1]):
            for listener in self._listeners:
                listener(signal)

    def _run(self, work: Callable[[Transaction], Result]) -> tuple[Result, list[Signal]]:
        try:
            with self._engine.begin() as connection:
                transaction = Transaction(connection)
                return work(transaction), transaction.signals
        except DBAPIError as error:
            if (told := not_stored(error)) is None:
                raise
            raise told from error

    def _run_freeing(self, work: Callable[[Transaction], Result]) -> tuple[Result, list[Signal]]:
        try:
            return self._run(work)
        except NotStored as error:
            if self._reserve is None or not error.disk_full:
                raise
        with self._reserve.released():
            return self._run(work)


def open_store(path: Path) -> Store:
    """The store in this SQLite file, brought to the newest schema. The file is made where it is missing. Raises
    NotStored where its disk is full, or another program holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    reserve = Reserve(path.with_name(f"{path.name}-reserve"))
    try:
        _open(engine)
    except NotStored:
        # What SQLite makes beside the file needs room too.
        with reserve.released():
            _open(engine)
    reserve.fill()
    path.chmod(0o600)
    return Store(engine, reserve)


def _open(engine: Engine) -> None:
    """Raises NotStored."""
    try:
        with engine.connect() as connection:
            migrate(connection)
    except DBAPIError as error:
        raise not_stored(error) or error from error


def migrate(connection: Connection) -> None:
    """Afterwards the schema is the newest one."""
    config = Config()
    config.set_main_option("script_location", "controller.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _configure_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # SQLAlchemy begins transactions by the event below; the driver's own way would begin too late.
    connection.isolation_level = None
    for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {setting}").close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
