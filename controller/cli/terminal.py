"""The person's terminal while a command on a device has it: keys as they are pressed, and the size that it has."""

import contextlib
import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from types import FrameType

from longshore.instance_sessions import ExecSession

PIECE = 64 * 1024
USUAL = (24, 80)
ENDED_BY = (signal.SIGTERM, signal.SIGHUP)


def size() -> tuple[int, int]:
    """Rows and columns; the usual ones where this is no terminal."""
    for descriptor in (1, 0, 2):
        with contextlib.suppress(OSError):
            found = os.get_terminal_size(descriptor)
            return found.lines, found.columns
    return USUAL


def give_input(session: ExecSession) -> None:
    """Passes standard input on, from a thread of its own, until either ends."""
    threading.Thread(target=_give_input, args=(session,), name="stdin", daemon=True).start()


def _give_input(session: ExecSession) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(sys.stdin.fileno(), PIECE):
            session.write(data)
    session.end_input()


@contextlib.contextmanager
def raw() -> Iterator[None]:
    """Each key goes to the command, Ctrl-C too; afterwards the terminal is as it was, also where a signal ends us."""
    descriptor = sys.stdin.fileno()
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    handlers = {number: signal.signal(number, _leave) for number in ENDED_BY}
    try:
        # What was typed ahead is not thrown away.
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def sizes_told(session: ExecSession) -> Iterator[None]:
    """The command hears of each new size of the terminal."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)

    def changed(_number: int, _frame: FrameType | None) -> None:
        # A full pipe wakes as well.
        with contextlib.suppress(BlockingIOError):
            os.write(wake, b".")

    def tell() -> None:
        # Not in the handler, which may run while the session is locked.
        while os.read(woken, PIECE):
            session.resize(*size())
        os.close(woken)

    handler = signal.signal(signal.SIGWINCH, changed)
    threading.Thread(target=tell, name="terminal-size", daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, handler)
        os.close(wake)
