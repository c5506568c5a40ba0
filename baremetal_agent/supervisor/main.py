"""The supervisor's life: start the workload, keep its output, record its end. `command` is how it is run."""

import fcntl
import os
import sys
import time

from baremetal_agent.supervisor.ending import attempt, end_groups, wait_until_gone
from baremetal_agent.supervisor.journal import tell
from baremetal_agent.supervisor.launching import IGNORED, NotStarted, Waiting, start
from baremetal_agent.supervisor.output import Log, Output
from baremetal_agent.supervisor.records import (
    ENDED,
    LAUNCH,
    STARTED,
    Launch,
    number,
    read,
    set_if_allowed,
    told,
    write,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable
else:
    import _signal as signal

# What still comes once the workload has ended is awaited so long.
DRAIN_SECONDS = 1.0
KILLED = 128 + 9
# pidfd(2): struct pidfd_info of Linux 6.13, and its mask for how a process ended, of 6.15.
PIDFD_GET_INFO, INFO_SIZE, INFO_EXIT = 0xC040FF0B, 64, 1 << 3


class Farewell:
    """Hears whether all processes are asked to end, which is how a machine is shut down. The supervisor stays for as
    long as its workload does."""

    def __init__(self) -> None:
        self.heard = False
        for each in IGNORED:
            signal.signal(each, self._hear)

    def _hear(self, *_: object) -> None:
        self.heard = True


def main(arguments: list[str]) -> int:
    """FOLDER LOCK REPORT [adopt]: see baremetal_agent.virtualenv.supervision, which calls it."""
    # The agent reaps the first process at once; the second one belongs to nobody who could end before it.
    first = os.pidfd_open(os.getpid())
    if os.fork():
        os._exit(0)
    # It may be in the workload's control groups, all of which is killed once the workload has ended.
    wait_until_gone(first)
    return watch_over(arguments[0], int(arguments[1]), int(arguments[2]), adopts=arguments[3:] == ["adopt"])


def watch_over(
    folder: str, lock: int, report: int, go: int | None = None, *, groups: "Iterable[str]" = (), adopts: bool = False
) -> int:
    """This process is the supervisor of the instance in this folder, and ends after it. `adopts`: another one has
    started it. `go`: nothing is started, and of the folder nothing read, until something comes from there; the
    workload's process waits in these control groups."""
    os.setsid()
    os.chdir(folder)
    farewell = Farewell()
    for descriptor in (lock, report, *([] if go is None else [go])):
        os.set_inheritable(descriptor, False)
    # First of all who this is: for the agent that waits, so that one that hangs can be ended, and for later ones.
    _say(report, f"{os.getpid()}\n")
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}".encode(), 0)
    waiting = None if go is None else Waiting(groups)
    if go is not None and not os.read(go, 1):
        # Who asked for it does not want it any more, or is gone.
        return 1
    launch = Launch(read(LAUNCH))
    settle_in(launch)
    log = Log(int(launch.one("log_bytes")))
    output = Output(log)
    try:
        child = 0 if adopts else start(launch, output, waiting or Waiting())
    except NotStarted as error:
        _say(report, str(error))
        return 1
    _say(report, "ok")
    os.close(report)
    code, reason = _follow(child, launch, output) if child else _adopt(launch, output)
    if farewell.heard:
        # The machine goes down and takes the workload along, in whatever way that ends.
        code, reason = None, "PowerLost"
    _conclude(launch, log, code, reason)
    return 0


def _conclude(launch: Launch, log: Log, code: int | None, reason: str) -> None:
    log.finish()
    told_code = "null" if code is None else code
    write(ENDED, f'{{"code": {told_code}, "time": {time.time():.6f}, "reason": "{reason}"}}')
    if unit := launch.one("unit"):
        tell(unit, " ".join(["ended", *([] if code is None else [f"with {code}"]), *([reason] if reason else [])]))


def settle_in(launch: Launch) -> None:
    """What is to be written to the kernel's files is, each only if those before could be."""
    for path, _, value in (setting.partition("=") for setting in launch.all("set")):
        if not set_if_allowed(path, value):
            return


def _follow(child: int, launch: Launch, output: Output) -> tuple[int | None, str]:
    rest = _rest()
    output.attend(os.pidfd_open(child))
    return _settle(rest, _code(os.waitpid(child, 0)[1]), launch, output)


def _adopt(launch: Launch, output: Output) -> tuple[int | None, str]:
    """Of what another supervisor has started. How it ended is known from bubblewrap, or from a kernel that tells it
    to others than the parent."""
    child = number(read(STARTED), "child") or 0
    rest = _rest()
    code = None
    try:
        process = os.pidfd_open(child)
    except OSError:
        pass
    else:
        output.attend(process)
        code = _exit_of(process)
    known = told("exit-code")
    code = known if known is not None else code
    return _settle(rest, code, launch, output, "" if code is not None else "MonitorLost")


def _rest() -> int | None:
    """What ends with the workload: a pidfd of the first process of its namespace, with which all others end; None for
    a workload without one, whose group is ended."""
    init = number(read(STARTED), "init")
    try:
        return os.pidfd_open(init) if init else None
    except OSError:
        return None


def _settle(
    rest: int | None, code: int | None, launch: Launch, output: Output, reason: str = ""
) -> tuple[int | None, str]:
    """Nothing of the workload is left, and all that it wrote is in the log."""
    if rest is not None:
        attempt(signal.pidfd_send_signal, rest, signal.SIGKILL)
    elif not launch.one("own_pids") and (group := _group(launch)):
        # Its number is nobody else's while the group has members.
        attempt(os.killpg, group, signal.SIGKILL)
    end_groups(launch)
    output.drain(DRAIN_SECONDS)
    if code in (KILLED, None) and any(_memory_kills(path) for path in launch.all("oom")):
        reason = "OutOfMemory"
    return code, reason


def _group(launch: Launch) -> int:
    """That of the workload's processes: bubblewrap gives it one of its own."""
    return number(read(STARTED), "pid" if launch.one("sandboxed") else "child") or 0


def _memory_kills(path: str) -> int:
    """How often the kernel has killed in a control group, by memory.events (v2) or memory.oom_control (v1)."""
    fields = [line.split() for line in read(path).splitlines()]
    return sum(int(count) for name, count in fields if name == "oom_kill")


def _exit_of(process: int) -> int | None:
    """From the kernel, if that is new enough."""
    info = bytearray(INFO_SIZE)
    info[:8] = INFO_EXIT.to_bytes(8, sys.byteorder)
    try:
        fcntl.ioctl(process, PIDFD_GET_INFO, info)
    except OSError:
        return None
    known = int.from_bytes(info[:8], sys.byteorder) & INFO_EXIT
    return _code(int.from_bytes(info[-4:], sys.byteorder)) if known else None


def _code(status: int) -> int:
    """As a shell tells it: 128 and the signal's number where a signal ended it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _say(report: int, text: str) -> None:
    try:
        os.write(report, text.encode())
    except OSError:
        # The agent was killed while it waited; the next one looks for itself.
        pass
