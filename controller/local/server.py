"""What the local broker and the local registry have in common: one child process on one address."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from controller.local.process import ChildProcess, accepts_connections, free_port
from controller.pki import CertificateAuthority


class LocalServer(ABC):
    """`async with` starts it and stops it. `names`: further host names under which it is reached."""

    def __init__(
        self, folder: Path, ca: CertificateAuthority, host: str = "127.0.0.1", port: int = 0, names: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        self._ca = ca
        self.host = host
        self.port = port or free_port(host)
        self._names = [host, "localhost", *names]
        self._process: ChildProcess | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @abstractmethod
    def _configured(self) -> ChildProcess:
        """Writes the configuration; the process that will read it. Raises StartFailed where it is not installed."""

    async def start(self) -> None:
        """Afterwards it answers. Raises StartFailed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = self._configured()
        await self._process.start(lambda: accepts_connections(self.host, self.port))

    async def stop(self) -> None:
        """Afterwards it does not run. Idempotent."""
        if self._process is not None:
            await self._process.stop()

    async def kill(self) -> None:
        """SIGKILL, as a crash would look. Idempotent."""
        if self._process is not None:
            await self._process.kill()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.stop())

    def _certified(self, name: str) -> None:
        """Afterwards `<name>.crt` and `<name>.key` lie in the folder, for all names."""
        if not (self._folder / f"{name}.crt").exists():
            self._ca.issue_server(self._names).write(self._folder, name)
