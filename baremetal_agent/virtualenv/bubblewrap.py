"""The sandbox of a workload: namespaces of its own, by bubblewrap (bwrap(1)).

The workload sees the device's programs read-only, a temporary folder of its own, its own files and devices, and its
own processes. It shares the device's network.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from baremetal_agent.virtualenv.commands import run
from baremetal_agent.virtualenv.confinement import (
    HOST_IPC,
    HOST_PID,
    NO_NEW_RIGHTS,
    WRITABLE_ROOT,
    Confinement,
    dropping,
)
from baremetal_agent.virtualenv.layout import Bind, Layout
from baremetal_agent.virtualenv.system import System, covers, this_system

PROGRAM = "bwrap"
NODES = ("full", "null", "random", "tty", "urandom", "zero")
LINKS = {"core": "/proc/kcore", "fd": "/proc/self/fd"} | {
    name: f"/proc/self/fd/{number}" for number, name in enumerate(("stdin", "stdout", "stderr"))
}
# Of root's rights those that are needed to become somebody else inside.
NEEDED = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")


async def usable() -> str:
    """Why there can be no sandbox on this device; empty where there can."""
    if shutil.which(PROGRAM) is None:
        return "bubblewrap is not installed"
    trial = Layout(("/bin/true",), (), "/", ())
    ended = await run(program(), *options(trial, Confinement(), this_system()), "--", *inner(trial, Confinement()))
    return "" if ended.code == 0 else ended.last_words


def program() -> str:
    return shutil.which(PROGRAM) or PROGRAM


def options(layout: Layout, confinement: Confinement, system: System) -> list[str]:
    """What makes the sandbox of a workload."""
    found = [] if HOST_PID in confinement.allow else ["--unshare-pid"]
    found += [] if HOST_IPC in confinement.allow else ["--unshare-ipc"]
    found += ["--unshare-uts", "--unshare-cgroup-try", "--new-session"]
    found += _rights(confinement)
    found += [word for option in _files(layout, confinement, system) for word in option]
    found += [] if WRITABLE_ROOT in confinement.allow else ["--remount-ro", "/"]
    return [*found, "--chdir", layout.folder]


def inner(layout: Layout, confinement: Confinement) -> list[str]:
    """The command inside: the workload's, as its user, without any way to more rights."""
    return [*(dropping(confinement) if os.geteuid() == 0 else NO_NEW_RIGHTS), *layout.words]


def _rights(confinement: Confinement) -> Iterator[str]:
    # Without root bwrap gives none by itself, and cannot give any.
    if os.geteuid() == 0:
        yield from ("--cap-drop", "ALL")
        for name in (*NEEDED, *confinement.capabilities):
            yield from ("--cap-add", name)


def _files(layout: Layout, confinement: Confinement, system: System) -> Iterator[tuple[str, ...]]:
    for folder in system.folders:
        yield "--ro-bind", folder, folder
    for link, target in system.links:
        yield "--symlink", target, link
    yield "--proc", "/proc"
    yield from _dev()
    yield "--perms", "1777", "--size", str(confinement.shared_memory), "--tmpfs", "/dev/shm"
    for folder in ("/tmp", "/var/tmp"):
        yield "--perms", "1777", "--tmpfs", folder
    yield "--dir", "/run"
    roomy: set[Path] = set()
    for bind in layout.binds:
        yield from _room(bind.target, system, roomy)
        # By itself bwrap makes folders that only root may enter.
        for parent in [*PurePosixPath(bind.target).parents][-2::-1]:
            yield "--perms", "0755", "--dir", str(parent)
        yield _bind(bind)
    for folder in sorted(map(str, roomy)):
        yield "--remount-ro", folder
    if os.geteuid() != 0:
        yield "--remount-ro", "/dev"


def _dev() -> Iterator[tuple[str, ...]]:
    """What every program may use. Not as root bwrap would make a second user namespace for terminals inside, and no
    command could follow the workload there."""
    if os.geteuid() == 0:
        yield "--dev", "/dev"
        return
    yield "--perms", "0755", "--tmpfs", "/dev"
    for name in NODES:
        yield "--dev-bind", f"/dev/{name}", f"/dev/{name}"
    for name, target in LINKS.items():
        yield "--symlink", target, f"/dev/{name}"


def _room(target: str, system: System, roomy: set[Path]) -> Iterator[tuple[str, ...]]:
    """A place for something new below a folder that is shown read-only: an empty one that shows all else that was in
    it. `roomy` are those that were made already."""
    found = covers(system, target)
    # Also one that is empty on the device, such as /opt of a fresh one, takes nothing new while it is shown.
    if found and found[0] not in roomy:
        folder, others = found
        roomy.add(folder)
        yield "--tmpfs", str(folder)
        for other in others:
            if other.is_symlink():
                yield "--symlink", str(other.readlink()), str(other)
            else:
                yield "--ro-bind", str(other), str(other)


def _bind(bind: Bind) -> tuple[str, ...]:
    option = "--dev-bind" if bind.device else "--ro-bind" if bind.read_only else "--bind"
    return option, bind.source, bind.target
