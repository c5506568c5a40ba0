"""What the workload writes, kept in files of limited size."""

import errno
import os
import select
import time

# Name of each stream, and of the pipe in the instance's folder that the workload writes it to.
PIPES = {"stdout": "out", "stderr": "err"}
CHUNK = 64 * 1024
LONGEST_LINE = 16 * 1024
LOG, OLDER_LOG = "log", "log.1"


class Log:
    """Lines with time and stream, in two files of at most half of `limit` bytes each; what is older is dropped.

    A disk that takes nothing loses lines, which the log says afterwards, and never holds up the workload.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit // 2
        self._rest = dict.fromkeys(PIPES, b"")
        self._lost = 0
        self._file = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size

    def add(self, stream: str, data: bytes) -> None:
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        stamp = _stamp(stream)
        entries = []
        for line in lines:
            entries += _parts(stamp, line)
        while len(rest) > LONGEST_LINE:
            entries.append(stamp + b"P " + rest[:LONGEST_LINE] + b"\n")
            rest = rest[LONGEST_LINE:]
        self._rest[stream] = rest
        self._write(entries)

    def finish(self) -> None:
        """What has no end of line yet is written too."""
        self._write([_stamp(stream) + b"F " + rest + b"\n" for stream, rest in self._rest.items() if rest])

    def _write(self, entries: list[bytes]) -> None:
        if self._lost and entries:
            entries = [_stamp("system") + b"F %d lines could not be written\n" % self._lost, *entries]
        for at in range(0, len(entries), 100):
            self._append(entries[at : at + 100])

    def _append(self, entries: list[bytes]) -> None:
        data = b"".join(entries)
        try:
            if self._size and self._size + len(data) > self._limit:
                self._rotate()
            if os.write(self._file, data) < len(data):
                raise OSError(errno.ENOSPC, "")
        except OSError:
            self._lost += len(entries)
            self._drop_half()
        else:
            self._size += len(data)
            self._lost = 0

    def _drop_half(self) -> None:
        """Half an entry would spoil the next one."""
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            # A disk that has become read-only takes no next one either.
            pass

    def _rotate(self) -> None:
        """At no moment is there no log."""
        fresh = os.open(f".{LOG}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            _unlink(f".{OLDER_LOG}")
            os.link(LOG, f".{OLDER_LOG}")
            os.rename(f".{OLDER_LOG}", OLDER_LOG)
            os.rename(f".{LOG}", LOG)
        except OSError:
            os.close(fresh)
            raise
        os.close(self._file)
        self._file, self._size = fresh, 0


class Output:
    """The pipes that the workload writes to. They have names, so that another process can read them on."""

    def __init__(self, log: Log) -> None:
        self._log = log
        flags = os.O_RDONLY | os.O_NONBLOCK
        self.open = {os.open(name, flags): stream for stream, name in PIPES.items()}

    def pump(self, descriptor: int) -> bool:
        """Reads on; False where nothing more can come."""
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return True
        if data:
            self._log.add(self.open[descriptor], data)
        else:
            self.open.pop(descriptor)
            os.close(descriptor)
        return bool(data)

    def attend(self, process: int) -> None:
        """Keeps what is written until the process behind this pidfd has ended."""
        poller = self._poller()
        poller.register(process, select.POLLIN)
        ready: list[int] = []
        while process not in ready:
            ready = [descriptor for descriptor, _ in poller.poll()]
            for descriptor in ready:
                if descriptor != process and not self.pump(descriptor):
                    poller.unregister(descriptor)

    def drain(self, seconds: float) -> None:
        """Keeps what is left in the pipes; no longer than this, should somebody still write."""
        deadline = time.monotonic() + seconds
        poller = self._poller()
        while self.open and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(left * 1000):
                if not self.pump(descriptor):
                    poller.unregister(descriptor)

    def last_words(self) -> str:
        """What is in the pipe of errors, which is then kept nowhere."""
        for descriptor, stream in self.open.items():
            if stream == "stderr":
                try:
                    return os.read(descriptor, CHUNK).decode(errors="replace").strip()
                except BlockingIOError:
                    break
        return ""

    def _poller(self) -> "select.poll":
        poller = select.poll()
        for descriptor in self.open:
            poller.register(descriptor, select.POLLIN)
        return poller


def _unlink(name: str) -> None:
    try:
        os.unlink(name)
    except FileNotFoundError:
        pass


def _parts(stamp: bytes, line: bytes) -> list[bytes]:
    """A line as entries of the log: all but the last are marked as to be continued."""
    pieces = [line[at : at + LONGEST_LINE] for at in range(0, len(line), LONGEST_LINE)] or [b""]
    return [stamp + b"P " + piece + b"\n" for piece in pieces[:-1]] + [stamp + b"F " + pieces[-1] + b"\n"]


def _stamp(stream: str) -> bytes:
    now = time.time()
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return f"{whole}.{int(now % 1 * 1e6):06d}+00:00 {stream} ".encode()
