"""What the local broker and the local registry have in common: one child process on one address."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from controller.files import write_durably
from controller.local.process import START_DEADLINE, ChildProcess, StartFailed, accepts_connections, free_port
from controller.pki import CertificateAuthority

EVERYWHERE = "0.0.0.0"


class LocalServer(ABC):
    """`async with` starts it and stops it. `names`: further host names under which it is reached."""

    def __init__(
        self,
        folder: Path,
        ca: CertificateAuthority,
        host: str = "127.0.0.1",
        port: int = 0,
        names: Sequence[str] = (),
        listen: str = "",
    ) -> None:
        """`host`: the name or address under which others reach it; `listen` (host:port): where it listens, if that is
        not the same."""
        self._folder = folder
        self._ca = ca
        self.host = host
        self.port = port or free_port(host)
        bound, _, bound_port = listen.rpartition(":")
        self._bound, self._bound_port = bound or host, int(bound_port or self.port)
        self._names = [host, "localhost", *names]
        self._process: ChildProcess | None = None
        # Held by whoever starts or stops it: what they do is no end of its own.
        self._changing = asyncio.Lock()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def listen(self) -> str:
        return f"{self._bound}:{self._bound_port}"

    @abstractmethod
    def _configured(self) -> ChildProcess:
        """Writes the configuration; the process that will read it. Raises StartFailed where it is not installed."""

    async def start(self) -> None:
        """Afterwards it answers. Raises StartFailed, also where another program has its address."""
        async with self._changing:
            await self._start()

    async def revive(self, deadline: float) -> None:
        """As `start`, unless it runs; and it may take so many seconds."""
        async with self._changing:
            if self._process is None or not self._process.running:
                await self._start(deadline)

    async def ended(self) -> int | None:
        """Its exit status, once it has ended and whoever stopped it has not started it again; None where it could not
        be started."""
        while True:
            process = self._process
            if process is None:
                raise RuntimeError("not started")
            status = await process.ended()
            async with self._changing:
                if process is self._process:
                    return status

    async def stop(self) -> None:
        """Afterwards it does not run. Idempotent."""
        async with self._changing:
            await self._stop()

    async def kill(self) -> None:
        """SIGKILL, as a crash would look. Idempotent."""
        if self._process is not None:
            await self._process.kill()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.stop())

    async def _start(self, deadline: float = START_DEADLINE) -> None:
        if await asyncio.to_thread(self._answers):
            raise StartFailed(f"cannot listen on {self.listen}: another program does")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = self._configured()
        await self._process.start(self._answers, deadline)

    async def _stop(self) -> None:
        if self._process is not None:
            await self._process.stop()

    def _answers(self) -> bool:
        return accepts_connections("127.0.0.1" if self._bound == EVERYWHERE else self._bound, self._bound_port)

    def _certified(self, name: str) -> None:
        """Afterwards `<name>.crt` and `<name>.key` lie in the folder, for all names."""
        if not (self._folder / f"{name}.crt").exists():
            self._ca.issue_server(self._names).write(self._folder, name)

    def _written(self, name: str, text: str) -> Path:
        """The file of this name in the folder, with this text."""
        path = self._folder / name
        # Nothing is written where nothing changes: the disk may be full.
        if not path.exists() or path.read_text() != text:
            write_durably(path, text.encode())
        return path
