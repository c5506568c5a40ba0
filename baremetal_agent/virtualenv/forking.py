"""Supervisors from a process that is kept ready for that: see baremetal_agent.supervisor.stem."""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import structlog

import baremetal_agent

log = structlog.get_logger()

PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from baremetal_agent.supervisor.{module} import {function} as main; sys.exit(main(sys.argv[2:]))"
)
# Room on its command line for that of a supervisor.
LONGEST_TITLE = 512
NOWHERE = ((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0), *((os.POSIX_SPAWN_DUP2, 0, out) for out in (1, 2)))


def python(module: str, function: str) -> list[str]:
    """The command line that calls this function of the supervisor's, with the words that are added to it."""
    root = str(Path(baremetal_agent.__file__).parents[1])
    program = PROGRAM.format(module=module, function=function)
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", program, root]


class Stem:
    """Starts the process when it is first wanted, and anew where it has ended. It ends with this one."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._pid = 0

    def ready(self) -> None:
        """It is there soon, if that can be."""
        if self._socket is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                theirs.set_inheritable(True)
                argv = [*python("stem", "serve"), str(theirs.fileno()), " " * LONGEST_TITLE]
                self._pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=NOWHERE, setsid=True)
                self._socket = ours
            except OSError as error:
                log.warning("stem_not_started", error=str(error))
                ours.close()
            finally:
                theirs.close()

    def fork(self, folder: Path, groups: Iterable[Path], descriptors: tuple[int, int, int]) -> bool:
        """Whether a supervisor of this folder is about to be there, which has these descriptors, as stem.py says."""
        self.ready()
        if self._socket is None:
            return False
        request = b"".join(os.fsencode(path) + b"\0" for path in (folder, *groups))
        try:
            socket.send_fds(self._socket, [request], descriptors, socket.MSG_DONTWAIT)
        except OSError as error:
            log.warning("stem_lost", error=str(error))
            self.close()
            return False
        return True

    def close(self) -> None:
        """It is gone, and with it what it has not answered yet."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
