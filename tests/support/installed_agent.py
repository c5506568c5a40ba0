"""An agent of a device that systemd runs, as a person has it there: its commands, and its service."""

import sys
from pathlib import Path

from tests.support.async_waiting import until_holds
from tests.support.site import Site


class InstalledAgent:
    """By its program's name."""

    def __init__(self, site: Site, program: str) -> None:
        self._site = site
        self.program = str(Path(sys.executable).with_name(program))
        self.unit = f"{program}.service"
        self.state = ("--state-dir", str(site.folder / "agent"))

    async def __call__(self, command: str, *arguments: str) -> str:
        """What the command prints. AssertionError where it fails."""
        return await self._site.device.run(self.program, command, *arguments)

    async def pid(self) -> int:
        """Of the service; 0 where it does not run."""
        return int((await self._site.device.run("systemctl", "show", "-p", "MainPID", "--value", self.unit)).strip())

    async def replaced_by(self, *command: str) -> None:
        """Runs a command on the device; returns once another process serves."""
        before = await self.pid()
        await self._site.device.run(*command)

        async def other() -> bool:
            return await self.pid() not in (0, before)

        await until_holds(other, seconds=60)

    async def restarted_and_killed(self) -> None:
        """Returns once another process serves after each."""
        await self.replaced_by("systemctl", "restart", self.unit)
        await self.replaced_by("kill", "-KILL", str(await self.pid()))
