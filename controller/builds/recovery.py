"""Ends and removes what a killed builder left: processes, containers, mounts, unfinished files."""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

from controller.builds import processes
from controller.builds.podman import MARKER, Podman

DEADLINE = 20.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


async def recover(podman: Podman) -> None:
    """Afterwards nothing of an earlier builder of this folder runs or is half done. Only before the first build."""
    await asyncio.to_thread(_end_processes, podman)
    await asyncio.to_thread(_forget_previous_boot, podman)
    await remove_leftovers(podman)
    await asyncio.to_thread(_empty, podman.temporary)


async def remove_leftovers(podman: Podman) -> None:
    """Removes working containers, their mounts and those of images. Only when no build runs."""
    listed = await podman.run("ps", "-a", "--external", "-q", "--no-trunc")
    if ids := listed.stdout.split():
        await podman.run("rm", "-f", "-t", "0", *ids)
    await podman.run("image", "unmount", "--all")
    await asyncio.to_thread(_delete_run_states, podman.temporary)
    await asyncio.to_thread(_unmount_below, podman.temporary)


async def remove_build(podman: Podman, temporary: Path) -> None:
    """Removes containers and mounts of the build that had this folder for unfinished files, and has ended; also while
    others run."""
    if ids := await asyncio.to_thread(podman.containers_of, temporary):
        await podman.run("rm", "-f", "-t", "0", *ids)
    await asyncio.to_thread(_delete_run_states, temporary)
    await asyncio.to_thread(_unmount_below, temporary)


def close(podman: Podman) -> None:
    """Unmounts the storage, which Podman mounts on itself, and removes what is of this boot only."""
    _unmount_below(podman.folder)
    _end_pause(podman)
    shutil.rmtree(podman.run_folder, ignore_errors=True)


def _end_pause(podman: Podman) -> None:
    """Without root, Podman keeps a process that holds its user namespace."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((podman.run_folder / "tmp" / "pause.pid").read_text())
        if _marked(pid, podman):
            os.kill(pid, signal.SIGKILL)


def _end_processes(podman: Podman) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        ours = [pid for pid in processes.all_pids() if pid != os.getpid() and _is_ours(pid, podman)]
        if not ours:
            return
        for pid in ours:
            # A build whose step ends cleans up after itself; it gets half of the time for that.
            if _in_container(pid, podman) or time.monotonic() > deadline - DEADLINE / 2 or not _builds(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {ours} of an earlier builder of {podman.folder} do not end")
        time.sleep(0.05)


def _is_ours(pid: int, podman: Podman) -> bool:
    return _marked(pid, podman) or _in_container(pid, podman)


def _marked(pid: int, podman: Podman) -> bool:
    wanted = f"{MARKER}={podman.folder}".encode()
    try:
        return wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _builds(pid: int) -> bool:
    """Whether it is `podman build` or what that runs, and not a pull, a push or a bootstrap."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"build" in words or not words[0].endswith((b"podman", b"apt-get", b"xargs", b"uv"))


def _in_container(pid: int, podman: Podman) -> bool:
    """Whether its root file system is a container of the builder's storage."""
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:
        return False
    root = next((line for line in lines if line.split()[4] == "/"), "")
    return f"{podman.storage}/" in root


def _delete_run_states(folder: Path) -> None:
    """Removes the runtime's state of RUN steps whose process is gone, and whose bundles lie in the folder."""
    for state in Path("/run/runc").glob("buildah-*/state.json"):
        with contextlib.suppress(OSError):
            if f"{folder}/" in state.read_text():
                shutil.rmtree(state.parent)


def _unmount_below(folder: Path) -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if mount.startswith(f"{folder}/")]):
        # MNT_DETACH: an open file of a process that is ending must not keep it.
        processes.unmount(mount)


def _forget_previous_boot(podman: Podman) -> None:
    """What Podman notes of mounts and locks is of one boot of the machine; it expects that folder on a RAM disk."""
    podman.run_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    note = podman.run_folder / "boot-id"
    current = BOOT_ID.read_text()
    if not note.exists() or note.read_text() != current:
        _unmount_below(podman.run_folder)
        _empty(podman.run_folder)
        note.write_text(current)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
