"""Which sockets listen, as the kernel tells: Documentation/networking/proc_net_tcp.rst."""

import contextlib
import struct
from pathlib import Path

PROC = Path("/proc")
# TCP_LISTEN; 127.0.0.0/8, ::1 and ::ffff:0:0/96.
LISTENING = "0A"
IPV4_LOOPBACK, IPV6_LOOPBACK, IPV4_IN_IPV6 = 127, bytes(15) + b"\1", bytes(10) + b"\xff\xff"


def listeners(pid: int, port: int) -> frozenset[int] | None:
    """The inodes of TCP sockets that listen at this port in the process's network, for others than that network
    itself; None where the kernel does not tell."""
    lines: list[str] = []
    try:
        lines += (PROC / str(pid) / "net" / "tcp").read_text().splitlines()[1:]
        # Absent where IPv6 is switched off.
        with contextlib.suppress(FileNotFoundError):
            lines += (PROC / str(pid) / "net" / "tcp6").read_text().splitlines()[1:]
    except OSError:
        return None
    return frozenset(int(line.split()[9]) for line in lines if _listens(line, port))


def holds(pid: int, sockets: frozenset[int]) -> bool:
    """Whether one of the sockets is the process's own."""
    names = {f"socket:[{inode}]" for inode in sockets}
    with contextlib.suppress(OSError):
        for descriptor in (PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if str(descriptor.readlink()) in names:
                    return True
    return False


def _listens(line: str, port: int) -> bool:
    _, local, _, state, *_ = line.split()
    address, _, number = local.partition(":")
    return state == LISTENING and int(number, 16) == port and not _is_loopback(address)


def _is_loopback(text: str) -> bool:
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    address = struct.pack(f"={len(words)}I", *words)
    return address == IPV6_LOOPBACK or address.removeprefix(IPV4_IN_IPV6)[0] == IPV4_LOOPBACK
