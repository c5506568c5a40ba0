"""A local controller side for tests that block: it runs on an event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from controller.local.stack import LocalStack
from controller.settings import Builds
from longshore.client import Client


class SyncStack:
    """The controller with its broker and registry, and a client of its administrator."""

    def __init__(self, stack: LocalStack, loop: asyncio.AbstractEventLoop) -> None:
        self.stack = stack
        self._loop = loop

    @property
    def context_file(self) -> Path:
        return self.stack.context_file

    def client(self, page_size: int = 0, patience: float = 30) -> Client:
        context = yaml.safe_load(self.context_file.read_text())
        return Client(context["address"], context["token"], context["ca"], page_size=page_size, patience=patience)

    def crash_controller(self) -> None:
        """Afterwards the controller does not run; it had no time to say goodbye."""
        self._wait(self.stack.controller.kill())

    def start_controller(self) -> None:
        """Afterwards it answers again."""
        self._wait(self.stack.start_controller())

    def stop_registry(self) -> None:
        """Afterwards the registry does not answer."""
        self._wait(self.stack.registry.stop())

    def start_registry(self) -> None:
        """Afterwards it answers again."""
        self._wait(self.stack.registry.start())

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


@contextmanager
def running_stack(folder: Path, builds: Builds | None = None) -> Iterator[SyncStack]:
    """A stack while the block lasts; nothing of it runs afterwards."""
    loop = asyncio.new_event_loop()
    # The thread outlives the child processes: they end with the thread that started them.
    thread = threading.Thread(target=loop.run_forever, name="local-stack")
    thread.start()
    made = SyncStack(LocalStack(folder, builds=builds), loop)
    try:
        made._wait(made.stack.start())
        yield made
    finally:
        made._wait(made.stack.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
