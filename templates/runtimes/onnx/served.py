"""The model that is served, from its loading on: what REST and gRPC both ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from .model import VERSION, Model

T = TypeVar("T")
SERVER = "longshore-onnx"
SERVER_VERSION = "1"
EXTENSIONS = ("binary_tensor_data",)


class NotFound(Exception):
    """Another model or version is asked for than the one that is served."""


class NotReady(Exception):
    """The model is still being loaded."""


class Served:
    """One model under one name; `model` is None while it loads."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self.model: Model | None = None
        self._threads = threads
        # Calls beyond this wait: more at a time than cores would make each of them slower, and none earlier done.
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="infer")

    async def load(self, path: Path) -> Model:
        """Afterwards it is ready. Raises CannotLoad."""
        model = await self._in_thread(lambda: Model(path, self._threads))
        trouble = await self._in_thread(model.warm_up)
        if model.hidden:
            print(f"outputs that are no tensors are left out: {', '.join(model.hidden)}", flush=True)
        if trouble:
            print(f"a call with zeros failed, which may be as it should: {trouble}", flush=True)
        self.model = model
        return model

    async def call(self, work: Callable[[Model], T]) -> T:
        """What `work` answers, which runs in a thread with the model. Raises NotReady, and what `work` raises."""
        model = self.ready_model()
        return await self._in_thread(lambda: work(model))

    def ready_model(self) -> Model:
        if self.model is None:
            raise NotReady(f"the model '{self.name}' is being loaded")
        return self.model

    def check_name(self, name: str, version: str = "") -> None:
        """Raises NotFound."""
        if name != self.name:
            raise NotFound(f"there is no model '{name}'; '{self.name}' is served")
        if version not in ("", VERSION):
            raise NotFound(f"there is no version '{version}' of '{self.name}'; '{VERSION}' is served")

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
