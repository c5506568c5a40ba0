"""From a folder that says what to run to a process that does."""

import fcntl
import os
import time

from baremetal_agent.supervisor.ending import end_child
from baremetal_agent.supervisor.output import PIPES, Output
from baremetal_agent.supervisor.records import (
    ENDED,
    LAUNCH,
    STARTED,
    STATUS,
    Launch,
    children,
    enter,
    read,
    reserve,
    set_if_allowed,
    start_ticks,
    told,
    write,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable
else:
    import _signal as signal

# Where bubblewrap finds the file that it tells its doings to, and the options that it is given.
STATUS_FD, SANDBOX_FD = 3, 4
# Programs that a workload goes through before it is itself, and how long that may take.
BEFORE = ("/bwrap", "/setpriv")
PATIENCE = 2.0
# Above all numbers that the workload is to find something at.
HIGH_FD = 10
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class NotStarted(Exception):
    """Nothing runs; the text says why."""


class Waiting:
    """A process that is to become the workload, and enters these control groups meanwhile: with version 2 the kernel
    may take ten milliseconds for that. It ends where this one does before it is told to go on."""

    def __init__(self, groups: "Iterable[str]" = ()) -> None:
        self._problem, writing = os.pipe()
        reading, self._go = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.close(self._go)
            _wait_and_become(groups, reading, writing)
        os.close(writing)
        os.close(reading)

    def go(self) -> None:
        """It becomes what the folder says. Raises NotStarted."""
        try:
            os.write(self._go, b"1")
        except OSError:
            # It has ended, and says why.
            pass
        os.close(self._go)
        problem = os.read(self._problem, 4096)
        os.close(self._problem)
        if problem:
            os.waitpid(self.child, 0)
            raise NotStarted(problem.decode(errors="replace"))


def _wait_and_become(groups: "Iterable[str]", reading: int, writing: int) -> None:
    try:
        os.setsid()
        for folder in groups:
            enter(folder)
        if os.read(reading, 1):
            _become(Launch(read(LAUNCH)), groups)
    except (OSError, ValueError) as error:
        os.write(writing, str(error).encode())
    finally:
        os._exit(127)


def start(launch: Launch, output: Output, waiting: Waiting) -> int:
    """The child: the workload, or bubblewrap around it. Raises NotStarted."""
    began = time.time()
    try:
        reserve(ENDED)
    except OSError as error:
        end_child(launch, waiting.child)
        raise NotStarted(f"its end could not be noted: {error}") from error
    waiting.go()
    child = waiting.child
    try:
        first, init = _inside(child, output, launch) if launch.one("sandboxed") else (child, 0)
        write(
            STARTED,
            f'{{"pid": {first}, "began": {start_ticks(first)}, "child": {child}, "init": {init}, "time": {began:.6f}}}',
        )
    except OSError as error:
        # What nobody could find again must not run.
        end_child(launch, child)
        raise NotStarted(f"its start cannot be noted: {error}") from error
    return child


def _become(launch: Launch, groups: "Iterable[str]") -> None:
    """This process turns into the workload, and is in these control groups already. Raises OSError, and ValueError for
    a limit that the kernel refuses."""
    _forget_agent()
    for folder in launch.all("cgroup"):
        if folder not in groups:
            enter(folder)
    if launch.one("cores"):
        os.sched_setaffinity(0, [int(core) for core in launch.one("cores").split(",")])
    _limit(launch)
    for number in (*IGNORED, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    _connect(launch)
    os.chdir(launch.one("folder") or "/")
    words = launch.all("arg")
    environment = {name: value for name, _, value in (entry.partition("=") for entry in launch.all("env"))}
    os.execve(words[0], words, environment)


def _forget_agent() -> None:
    """What would come from the agent, and is right for it alone: files that nobody else may read, and to be the last
    to be killed when memory is short."""
    os.umask(0o022)
    # Only root may take back that it is killed before others.
    set_if_allowed("/proc/self/oom_score_adj", "0")


def _limit(launch: Launch) -> None:
    for limit in launch.all("rlimit"):
        import resource

        kind, _, value = limit.partition(":")
        resource.setrlimit(int(kind), (int(value), int(value)))


def _connect(launch: Launch) -> None:
    # Opened for reading too, so that a workload that writes while nobody reads waits, and does not die.
    opened = [os.open(name, os.O_RDWR) for name in PIPES.values()]
    if launch.one("sandboxed"):
        opened.append(os.open(STATUS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        opened.append(_holding("".join(f"{option}\0" for option in launch.all("sandbox"))))
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH_FD) for descriptor in opened]
    for number, descriptor in enumerate(high, start=1):
        os.dup2(descriptor, number)


def _holding(text: str) -> int:
    """A descriptor from which this can be read."""
    descriptor = os.memfd_create("sandbox")
    os.write(descriptor, text.encode(errors="surrogateescape"))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _inside(child: int, output: Output, launch: Launch) -> tuple[int, int]:
    """The workload's own process, and the first one of its namespace (0 without one), which bubblewrap is about to
    make."""
    while True:
        made = told("child-pid") or 0
        inner = [] if not made else children(made) if launch.one("own_pids") else [made]
        if inner:
            _await_program(inner[0])
            return inner[0], made if launch.one("own_pids") else 0
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            if told("exit-code") is None:
                os.waitpid(child, 0)
                raise NotStarted(output.last_words() or "the sandbox cannot be made")
            # It was over before anybody could look.
            return child, made
        time.sleep(0.001)


def _await_program(pid: int) -> None:
    """Returns as soon as the process is the workload itself, with its user and rights, or has ended."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if not os.readlink(f"/proc/{pid}/exe").endswith(BEFORE):
                return
        except OSError:
            return
        time.sleep(0.001)
