"""Which commands this agent has open inside instances: what an agent that is killed leaves running is found again."""

import contextlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from edge_agent.runtime.command_processes import kill_command, started

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

log = structlog.get_logger()


@dataclass(frozen=True)
class OpenCommand:
    """`pid` leads the command's session; `started` and `boot` tell it from a later owner of the number. `within` is
    part of the name of its control group, empty where it has none of its own."""

    pid: int
    started: int
    boot: str
    within: str


class OpenCommands:
    """One small file for each, in a folder. Losing them, or a disk that takes none, leaves commands running at most."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own: set[str] = set()

    def add(self, pid: int, within: str = "") -> str:
        """The name by which `remove` knows it."""
        name = secrets.token_hex(8)
        self._own.add(name)
        found = OpenCommand(pid, started(pid), BOOT_ID.read_text().strip(), within)
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / name).write_text(json.dumps(asdict(found)))
        return name

    def remove(self, name: str) -> None:
        if name in self._own:
            self._own.discard(name)
            self._drop(name)

    def _drop(self, name: str) -> None:
        with contextlib.suppress(OSError):
            (self._folder / name).unlink(missing_ok=True)

    async def kill_left(self) -> None:
        """Nothing is left of the commands of an earlier life of this agent."""
        for name, left in list(self._left()):
            if left is not None and _is_same(left):
                log.warning("left_command_killed", pid=left.pid)
                await kill_command(left.pid, left.within)
            self._drop(name)

    def _left(self) -> Iterator[tuple[str, OpenCommand | None]]:
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.name in self._own:
                continue
            try:
                yield path.name, OpenCommand(**json.loads(path.read_text()))
            except (OSError, ValueError, TypeError):
                # Cut off while it was written, or the disk fails.
                yield path.name, None


def _is_same(left: OpenCommand) -> bool:
    """Where the leader is gone, a control group of their own still tells its children from others."""
    if left.boot != BOOT_ID.read_text().strip():
        return False
    now = started(left.pid)
    return now == left.started or (now == 0 and bool(left.within))
