"""Where the demonstration keeps its things, and how all traces of it are taken off the machine again.

Also those of a run that was killed: the next one begins by cleaning up.
"""

import asyncio
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.builds import recovery
from controller.builds.podman import Podman

LOGS = ("controller/controller.log", "controller/broker/broker.log", "controller/registry/registry.log", "agent.log")


class FolderInUse(Exception):
    """Another demonstration runs in this folder."""


class CannotCleanUp(Exception):
    """Something of the demonstration is still on this machine; the text says what, and what to do."""


class DemoFolder:
    """`bases` stays from run to run, in `root` unless it is given; `logs` has those of a run that failed, all else is
    of one run."""

    def __init__(self, root: Path, bases: Path | None = None) -> None:
        self._root = root
        self.bases = bases or root / "bases"
        self.logs = root / "logs"
        self.run = root / "run"
        self.controller = self.run / "controller"
        self.agent = self.run / "agent"
        self.agent_log = self.run / "agent.log"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder until the block or this process ends. Raises FolderInUse."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise FolderInUse(f"a demonstration runs here already (process {file.read().strip()})") from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def keep_logs(self) -> None:
        """Copies the logs of this run to where the next run leaves them alone."""
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir()
        for name in LOGS:
            if (self.run / name).exists():
                shutil.copy(self.run / name, self.logs)

    async def clean_up(self) -> None:
        """Afterwards nothing of a run is left: containers, images, processes, mounts, files. Raises CannotCleanUp."""
        if not self.run.exists():
            return
        if (self.agent / "identity.json").exists():
            await _leave(self.agent)
        builder = Podman(self.controller / "builder")
        if builder.folder.exists():
            await asyncio.to_thread(builder.prepare)
            await recovery.recover(builder)
            await _remove_storage(builder)
            await asyncio.to_thread(recovery.close, builder)
        await asyncio.to_thread(shutil.rmtree, self.run)


async def _leave(state: Path) -> None:
    agent = Path(sys.executable).with_name("longshore-edge-agent")
    code, output = await _output(str(agent), "leave", "--state-dir", str(state))
    if code != 0:
        raise CannotCleanUp(f"what the agent of {state} ran is still there: {output}")


async def _remove_storage(builder: Podman) -> None:
    """Without root, its files belong to further ids of this user, which it is only inside of a user namespace."""
    if os.geteuid() == 0 or not builder.storage.exists():
        return
    # Podman mounts the folder of layers on itself.
    script = 'umount -l "$1/overlay" 2>/dev/null; rm -rf "$1"'
    done = await builder.run("unshare", "sh", "-c", script, "sh", str(builder.storage))
    if done.returncode != 0:
        raise CannotCleanUp(f"{builder.storage} cannot be removed: {done.stderr}")


async def _output(*argv: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        process_group=0,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace").strip()
