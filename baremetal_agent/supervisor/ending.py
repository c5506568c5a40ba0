"""Ends what a workload has left running. Whoever has gone already is no error."""

import os
import select

from baremetal_agent.supervisor.records import Launch, children, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal


def attempt(send: "Callable[[int, int], None]", target: int, number: int) -> None:
    """Sends a signal, if the target is still there."""
    try:
        send(target, number)
    except OSError:
        # It has gone.
        pass


def wait_until_gone(process: int) -> None:
    """`process` is a pidfd, and is closed."""
    poller = select.poll()
    poller.register(process, select.POLLIN)
    poller.poll()
    os.close(process)


def end_groups(launch: Launch) -> None:
    """Nothing in the control groups of the workload runs soon, but for this process, if it is in them too."""
    for folder in launch.all("cgroup"):
        for pid in read(f"{folder}/cgroup.procs").split():
            if int(pid) != os.getpid():
                attempt(os.kill, int(pid), signal.SIGKILL)


def end_child(launch: Launch, child: int) -> None:
    """The child has ended, and all that it started ends."""
    found, below = [], [child]
    while below:
        pid = below.pop()
        # While it stands still it starts nothing that would be missed here.
        attempt(os.kill, pid, signal.SIGSTOP)
        found.append(pid)
        below += children(pid)
    for pid in found:
        attempt(os.kill, pid, signal.SIGKILL)
    attempt(os.killpg, child, signal.SIGKILL)
    end_groups(launch)
    os.waitpid(child, 0)
