"""Another machine's Podman, by its service."""

from collections.abc import Sequence
from pathlib import Path

import aiohttp

from controller.builds import processes
from controller.builds.machine import HostLost
from controller.builds.podman import Podman
from controller.builds.processes import Completed

PING_DEADLINE = 10.0


class RemotePodman(Podman):
    """Runs `podman --remote` on the service behind `socket`. A failed command of a service that has gone is HostLost.

    Processes and files on this machine are those of `own`.
    """

    remote = True

    def __init__(self, own: Podman, socket: Path, address: str) -> None:
        super().__init__(own.folder)
        self._socket = socket
        self._address = address

    def argv(self, args: Sequence[str]) -> list[str]:
        return ["podman", "--remote", "--url", f"unix://{self._socket}", *args]

    async def run(self, *args: str, temporary: Path | None = None) -> Completed:
        done = await processes.run(self.argv(args), self.environment(temporary))
        if done.returncode != 0:
            await self.require_alive()
        return done

    def layers(self, image_id: str) -> tuple[Path, ...]:
        return ()

    async def require_alive(self) -> None:
        """Raises HostLost where the service does not answer."""
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.UnixConnector(str(self._socket)),
                    timeout=aiohttp.ClientTimeout(total=PING_DEADLINE),
                ) as session,
                session.get("http://podman/_ping") as answer,
            ):
                if answer.status != 200:
                    raise HostLost(f"{self._address} answers with HTTP status {answer.status}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise HostLost(f"{self._address} does not answer any more: {error or type(error).__name__}") from error
