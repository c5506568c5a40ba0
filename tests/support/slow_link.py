"""A cable that delays and loses packets, for kernels without netem: two TAP interfaces and a process between them.

It works on Ethernet frames, so that what is lost is lost to TCP itself, which notices, waits and sends again as it does
in the field. `python -m tests.support.slow_link PORT BRIDGE` is that process; each line that it reads is a
profile's name, or "count", which it answers with the bytes that went to the device so far.
"""

import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.device_network import NetworkPort
from tests.support.network_profiles import PROFILES, Profile

# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME = 2048
# So many seconds of traffic wait before what comes is dropped, as in the buffer of a modem.
BUFFER_SECONDS = 1.0
ROOT = Path(__file__).resolve().parents[2]


class SlowLink:
    """The cable of one device; a fast one until `set` names another profile, which holds from then on."""

    def __init__(self) -> None:
        self._profile = "lan"
        self._process: subprocess.Popen[str] | None = None

    def connect(self, port: NetworkPort) -> None:
        """Afterwards `eth0` in the port's namespace and its end on the bridge are there."""
        argv = [sys.executable, "-m", "tests.support.slow_link", port.name, port.bridge]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, bufsize=1, cwd=ROOT)
        assert self._said() == "ready\n", "the link has failed"
        self._tell(self._profile)

    def disconnect(self) -> None:
        """Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.communicate()

    def set(self, profile: str) -> None:
        self._profile = profile
        self._tell(profile)

    def count(self) -> int:
        """Bytes that went to the device so far."""
        self._tell("count")
        return int(self._said())

    def _tell(self, line: str) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")

    def _said(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@dataclass
class _Direction:
    """Frames on their way from one end to the other, in the order in which they leave."""

    source: int
    target: int
    count: int = 0
    _waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    _free_at: float = 0.0

    def take(self, profile: Profile, began: float) -> None:
        for frame in _frames(self.source):
            now = time.monotonic()
            leaves = max(now, self._free_at)
            full = leaves - now > BUFFER_SECONDS
            if full or not profile.passes(now - began) or random.random() < profile.loss:
                continue
            self._free_at = leaves + (len(frame) / profile.rate if profile.rate else 0)
            arrives = self._free_at + profile.delay + random.uniform(-1, 1) * profile.jitter
            self._waiting.append((max(arrives, self._waiting[-1][0] if self._waiting else 0), frame))

    def give(self) -> None:
        """What has arrived by now is handed over."""
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            frame = self._waiting.popleft()[1]
            self.count += len(frame)
            # An end that is not up takes nothing.
            with suppress(OSError):
                os.write(self.target, frame)

    @property
    def next_at(self) -> float:
        return self._waiting[0][0] if self._waiting else float("inf")


def _frames(end: int) -> Iterator[bytes]:
    with suppress(OSError):
        while True:
            yield os.read(end, FRAME)


def _tap(name: str) -> int:
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return end


def _ip(*words: str) -> None:
    subprocess.run(["ip", "link", "set", *words], check=True)


def _serve(here: int, there: int) -> None:
    """Until nobody speaks to it any more."""
    profile, began = PROFILES["lan"], time.monotonic()
    down, up = _Direction(here, there), _Direction(there, here)
    while True:
        wait = min(down.next_at, up.next_at) - time.monotonic()
        ready, _, _ = select.select([here, there, 0], [], [], None if wait == float("inf") else max(wait, 0))
        if 0 in ready:
            # Unbuffered, so that no line waits where select does not see it.
            lines = os.read(0, FRAME).decode().splitlines()
            if not lines:
                return
            for line in lines:
                if line == "count":
                    print(down.count, flush=True)
                else:
                    profile, began = PROFILES[line], time.monotonic()
        for direction in (down, up):
            if direction.source in ready:
                direction.take(profile, began)
            direction.give()


def main(port: str, bridge: str) -> None:
    inside = f"{port}i"
    here, there = _tap(port), _tap(inside)
    _ip(port, "master", bridge, "up")
    _ip(inside, "netns", port, "name", "eth0")
    print("ready", flush=True)
    _serve(here, there)


if __name__ == "__main__":
    main(*sys.argv[1:])
