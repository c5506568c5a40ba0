"""Small files of an instance's folder, which is the working directory, and what /proc says of processes."""

import os

LAUNCH, STARTED, ENDED, STATUS = "launch", "started", "ended", "status"
CHUNK = 64 * 1024
# Bytes of a record.
ROOM = 256


class Launch:
    """The file `launch`: "key=value" fields, each ended by a zero byte."""

    def __init__(self, content: str) -> None:
        self._fields = [field.partition("=") for field in content.split("\0") if field]

    def all(self, key: str) -> list[str]:
        return [value for name, _, value in self._fields if name == key]

    def one(self, key: str) -> str:
        """The first of them; empty where there is none."""
        return next(iter(self.all(key)), "")


def number(text: str, key: str) -> int | None:
    """The last one that goes by this name in flat JSON objects; None where there is none, or null."""
    _, there, rest = text.rpartition(f'"{key}":')
    found = rest.split(",")[0].split("}")[0].strip()
    return int(found) if there and found != "null" else None


def told(key: str) -> int | None:
    """What bubblewrap has told under this name."""
    return number(read(STATUS), key)


def reserve(name: str) -> None:
    """Afterwards there is room for what `write` writes, however full the disk becomes."""
    descriptor = os.open(f".{name}", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, b" " * ROOM)
    finally:
        os.close(descriptor)


def write(name: str, text: str) -> None:
    """Durable, and whole or not there."""
    descriptor = os.open(f".{name}", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        # All are of one size, and what is there already is not given back: that could not be had again.
        os.write(descriptor, text.encode().ljust(ROOM))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(f".{name}", name)
    folder = os.open(".", os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def write_to(path: str, text: str) -> None:
    """To a file of the kernel's."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def enter(group: str) -> None:
    """This process, which has no threads, is in the control group in this folder. Raises OSError."""
    try:
        # Of version 1: to take a whole process the kernel would wait until nobody is in the middle of a fork.
        write_to(f"{group}/tasks", "0")
    except FileNotFoundError:
        write_to(f"{group}/cgroup.procs", "0")


def set_if_allowed(path: str, text: str) -> bool:
    try:
        write_to(path, text)
    except OSError:
        return False
    return True


def set_at(path: str, position: int, content: bytes) -> bool:
    """In the middle of a file of the kernel's, if that is allowed."""
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except OSError:
        return False
    try:
        return os.pwrite(descriptor, content, position) == len(content)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def read(path: str) -> str:
    """Empty where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    pieces = []
    try:
        while piece := os.read(descriptor, CHUNK):
            pieces.append(piece)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return b"".join(pieces).decode(errors="surrogateescape")


def children(pid: int) -> list[int]:
    """Numbers of its children, the oldest first."""
    listing = f"/proc/{pid}/task/{pid}/children"
    if os.access(listing, os.F_OK):
        return [int(child) for child in read(listing).split()]
    # A kernel that does not list them.
    found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return sorted(other for other in found if _status(other, 1) == pid)


def start_ticks(pid: int) -> int:
    """When a process began, in ticks since the machine did: with its number it names the process in this life of the
    machine. 0 where it has gone."""
    return _status(pid, 19)


def _status(pid: int, at: int) -> int:
    """A field of proc(5)'s stat, counted from the state."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[at]) if fields else 0
