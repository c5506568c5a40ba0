"""The bridge that the simulated devices of one test process share, and each device's cable to it.

Every test process claims a number of its own, held by a file lock; the number names its bridge, subnet and network
namespaces. Whoever claims a number first removes what a killed process has left under it.
"""

import atexit
import contextlib
import fcntl
import functools
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.support import device_cgroups

SUBNETS = range(1, 250)
NAMESPACES = Path("/run/netns")


def _ip(*args: str, check: bool = True) -> None:
    subprocess.run(["ip", *args], check=check, stdout=subprocess.DEVNULL, stderr=None if check else subprocess.DEVNULL)


class DeviceNetwork:
    """A bridge of this machine; `gateway` is this machine's address on it."""

    def __init__(self, number: int, lock: IO[str]) -> None:
        self.number = number
        self._lock = lock
        self._ports = itertools.count(1)
        self.bridge = f"lsbr{number}"
        self.gateway = f"10.79.{number}.1"

    @staticmethod
    @functools.cache
    def of_this_process() -> "DeviceNetwork":
        """One network for all devices of this process, gone when it ends."""
        network = _claim()
        network.create()
        atexit.register(network.remove)
        return network

    def create(self) -> None:
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "add", f"{self.gateway}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")

    def remove(self) -> None:
        sweep(self.number)
        self._lock.close()

    def new_port(self) -> "NetworkPort":
        index = next(self._ports)
        return NetworkPort(f"ls{self.number}-{index}", f"10.79.{self.number}.{9 + index}", self.bridge, self.gateway)


@dataclass(frozen=True)
class NetworkPort:
    """A device's place on the bridge. Its network namespace lasts from `plug_in` to `unplug`."""

    name: str
    address: str
    bridge: str
    gateway: str

    @property
    def namespace(self) -> Path:
        return NAMESPACES / self.name

    def connect(self) -> None:
        """The cable: `eth0` in the namespace, and its other end on the bridge."""
        _ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", self.name, "master", self.bridge, "up")

    def plug_in(self, connect: Callable[["NetworkPort"], None] = connect) -> None:
        """`connect` lays another cable than a fast one."""
        inside = ("-n", self.name)
        _ip("netns", "add", self.name)
        connect(self)
        _ip(*inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "route", "add", "default", "via", self.gateway)
        _ip("netns", "exec", self.name, "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def unplug(self) -> None:
        _ip("link", "del", self.name, check=False)
        _ip("netns", "del", self.name, check=False)

    def set_link(self, up: bool) -> None:
        _ip("link", "set", self.name, "up" if up else "down")


def sweep(number: int) -> None:
    """Removes everything that goes by this number; only for the holder of its lock."""
    for namespace in _named(NAMESPACES, f"ls{number}-*"):
        _ip("link", "del", namespace.name, check=False)
        _ip("netns", "del", namespace.name, check=False)
    for hierarchy in device_cgroups.hierarchies():
        for folder in _named(hierarchy, f"ls{number}-*"):
            device_cgroups.remove(folder.name)
    _ip("link", "del", f"lsbr{number}", check=False)


def _named(folder: Path, pattern: str) -> Iterator[Path]:
    yield from folder.glob(pattern) if folder.is_dir() else ()


def _claim() -> DeviceNetwork:
    """The first number that no living process holds. The lock ends with this process and all that inherit nothing."""
    # The same for all processes of this machine, whatever their settings of temporary files: the names are, too.
    folder = Path("/tmp", f"longshore-test-networks-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    for number in SUBNETS:
        lock = (folder / str(number)).open("w")
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sweep(number)
            return DeviceNetwork(number, lock)
        lock.close()
    raise AssertionError("all numbers for simulated networks are held by other test processes")
