"""Child processes whose lines are seen as they come, and which end with the task that awaits them."""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.builds.cancelling import despite_cancel
from controller.builds.model import OnLine
from controller.builds.progress_lines import ProgressLines, joined

STOP_DEADLINE = 10.0
# A build of which nothing could be killed for so long is storing a layer, or hangs.
QUIET = 3.0
# What Podman calls itself where it copies into a container or unpacks a layer, in a process of its own.
HELPERS = (b"buildah-copier", b"storage-untar", b"storage-applyLayer")
# Bytes of output that are looked at before others have their turn: with the shortest lines, some thousand.
AT_A_TIME = 8192
MNT_DETACH = 2

# Ends a process that is not wanted any more; afterwards it does not run.
Stop = Callable[[asyncio.subprocess.Process], Awaitable[None]]


@dataclass(frozen=True)
class Completed:
    returncode: int
    stdout: str
    stderr: str


async def run(argv: Sequence[str], env: Mapping[str, str]) -> Completed:
    """Runs a program to its end; a cancel ends it with TERM, then KILL, and all that it started."""
    out: list[str] = []
    err: list[str] = []
    code = await stream(argv, env, lambda name, text: (err if name == "stderr" else out).append(text))
    return Completed(code, joined(out), joined(err))


async def stream(argv: Sequence[str], env: Mapping[str, str], on_line: OnLine, stop: Stop | None = None) -> int:
    """Runs a program, gives each line of its output to `on_line`, returns its exit status.

    A cancel calls `stop` and then raises CancelledError: nothing of the program runs afterwards.
    """
    process = await asyncio.create_subprocess_exec(
        *argv, env=dict(env), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    reading = asyncio.gather(
        _read(process.stdout, "stdout", on_line), _read(process.stderr, "stderr", on_line), process.wait()
    )
    try:
        await asyncio.shield(reading)
    except BaseException:
        # A cancel, or a reader that broke: the program must not run on unseen.
        await despite_cancel((stop or stop_group)(process))
        await despite_cancel(asyncio.wait([reading], timeout=STOP_DEADLINE))
        raise
    assert process.returncode is not None
    return process.returncode


async def stop_group(process: asyncio.subprocess.Process) -> None:
    """TERM to the process and its children, KILL after a deadline."""
    for name in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_DEADLINE):
                await process.wait()
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def stop_build(process: asyncio.subprocess.Process) -> None:
    """Ends `podman build` so that it cleans up after itself, where it can be made to.

    No signal to Podman does: the process of a RUN step would run on. When PID 1 of the step's container is killed, or
    the process that copies, Podman sees the step fail, and with --force-rm removes container, bundle and mounts. Where
    it does the work itself, as when it reads what a step has made, only an end of Podman is prompt; then the caller
    removes what it leaves.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + 2 * STOP_DEADLINE
    quiet = clock() + QUIET
    while process.returncode is None and clock() < min(deadline, quiet):
        if await asyncio.to_thread(kill_steps, process.pid):
            quiet = clock() + QUIET
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await process.wait()
    if process.returncode is None:
        await stop_group(process)


def kill_steps(builder: int) -> bool:
    """KILL to PID 1 of every container below the process `builder`, and to its helpers. Whether there were any."""
    own_depth = len(_nspid(os.getpid()))
    killed = False
    for pid in _descendants(builder):
        ids = _nspid(pid)
        if (len(ids) > own_depth and ids[-1] == 1) or _name(pid) in HELPERS:
            killed = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return killed


def _name(pid: int) -> bytes:
    """The first word of its command line; b"" where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
    except OSError:
        return b""


def end_orphans(temporary: Path) -> None:
    """Ends what a killed `podman build` with this TMPDIR left running: its helpers, and the containers of its steps,
    whose bundles lie there."""
    deadline = time.monotonic() + STOP_DEADLINE
    while (pids := _orphans(temporary)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _orphans(temporary: Path) -> list[int]:
    found = [pid for pid in all_pids() if _has_in_environment(pid, f"TMPDIR={temporary}")]
    for state in Path("/run/runc").glob("buildah-*/state.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            text = state.read_text()
            if f"{temporary}/" in text and _nspid(pid := int(json.loads(text)["init_process_pid"])):
                found.append(pid)
    return found


def _has_in_environment(pid: int, setting: str) -> bool:
    try:
        return setting.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def unmount(path: str) -> None:
    """Takes the mount away, also when something still uses it."""
    ctypes.CDLL(None).umount2(os.fsencode(path), MNT_DETACH)


def all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


async def _read(pipe: asyncio.StreamReader, name: str, on_line: OnLine) -> None:
    lines = ProgressLines()
    while piece := await pipe.read(AT_A_TIME):
        for text in lines.feed(piece):
            on_line(name, text)
        # A program that prints without end must not hold up what else this process does.
        await asyncio.sleep(0)
    for text in lines.end():
        on_line(name, text)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        with contextlib.suppress(OSError, IndexError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(pid)
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _nspid(pid: int) -> list[int]:
    """The process's ids from this PID namespace inwards; [] where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return []
    line = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
    return [int(part) for part in line.split()[1:]]
