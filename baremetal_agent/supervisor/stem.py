"""A process that has read all of this already, and from which a supervisor is forked as soon as somebody asks.

Of Python's start, which takes longer than all that a supervisor does until its workload runs, nothing is left then; and
what both have in memory they have once. It ends with whoever asks.
"""

import os

from baremetal_agent.supervisor.main import watch_over
from baremetal_agent.supervisor.records import read, set_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

# A request: the folder of the instance, then control groups that the workload is to enter, each ended by a zero byte;
# with the descriptors of the instance's lock, of the report and of the word to go on.
LARGEST, DESCRIPTORS = 64 * 1024, 3
# What `ps` shows of a supervisor, before its folder.
TITLE = "longshore-supervisor"


def serve(arguments: list[str]) -> int:
    """SOCKET: on which requests come, until its other end is closed."""
    import _socket

    _close_others(int(arguments[0]))
    asked = _socket.socket(fileno=int(arguments[0]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, attached, _, _ = asked.recvmsg(LARGEST, _socket.CMSG_SPACE(4 * DESCRIPTORS))
        if not request:
            return 0
        given = [number for _, _, sent in attached for number in _numbers(sent)]
        folder, *groups = request.decode(errors="surrogateescape").split("\0")[:-1]
        if os.fork() == 0:
            asked.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _rename(f"{TITLE}\0{folder}")
            return watch_over(folder, *given, groups=groups)
        for number in given:
            os.close(number)


def _close_others(kept: int) -> None:
    """Nothing that somebody had open where this was started is open here, nor in any workload."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            try:
                os.close(int(name))
            except OSError:
                # The one by which they were listed.
                pass


def _numbers(sent: bytes) -> list[int]:
    """Those of descriptors, each an int of C's."""
    return memoryview(sent).cast("i").tolist()


def _rename(title: str) -> None:
    """This is its command line now, if there is room for it: that of its process says nothing of whose it is."""
    fields = read("/proc/self/stat").rpartition(")")[2].split()
    # proc(5): arg_start and arg_end, counted from the state.
    start, end = int(fields[45]), int(fields[46])
    words = title.encode(errors="surrogateescape")
    if len(words) < end - start:
        set_at("/proc/self/mem", start, words.ljust(end - start, b"\0"))
