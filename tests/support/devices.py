"""Simulated devices: machines of their own on this one, each with its own Podman store, address and power switch.

A device is a set of namespaces (net, pid, mount, uts, ipc, cgroup) with private /run, /dev/shm, /var/lib/containers
and /etc/containers, on a bridge that it shares with the devices of the same test process. Killing its first
process is a power cut: every process and mount in it is gone, its storage stays. Needs root.
"""

import asyncio
import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edge_agent.podman.config import host_facts, render
from tests.support import device_cgroups, device_root, device_systemd
from tests.support.device_cgroups import Cgroups
from tests.support.device_network import DeviceNetwork
from tests.support.device_root import DeviceRoot
from tests.support.slow_link import SlowLink

BOOT_DEADLINE = 20.0
PLACES = (Path("/var/lib/containers"), Path("/etc/containers"))

# Runs as the first process of the device; $1 is its folder, $2 its name, the rest what it becomes then. What it binds
# is private to it.
INIT = f"""
set -e
{device_root.ENTER}
ip link set lo up
hostname "$2"
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mkdir -p /run/lock
mount --bind "$1/lib" /var/lib/containers
mount --bind "$1/etc" /etc/containers
if [ -d /etc/cni/net.d ]; then mount -t tmpfs tmpfs /etc/cni/net.d; fi
{device_cgroups.ENTER}
shift 2
exec "$@"
"""


class SimulatedDevice:
    """A device; as a context manager it is booted inside, and nothing of it is left afterwards.

    `folder` keeps its storage; it must be on a file system that overlay mounts work on (no tmpfs, no overlay).
    """

    def __init__(
        self,
        folder: Path,
        network: DeviceNetwork | None = None,
        *,
        systemd: bool = False,
        cable: SlowLink | None = None,
        root: DeviceRoot | None = None,
        cgroups: Cgroups = Cgroups.OURS,
    ) -> None:
        """With `systemd` that runs the device, as it runs a machine; else nothing does. `cable`: the network reaches
        it by that one. Without `root` it has the files of this machine."""
        self._cable = cable
        self.folder = folder
        self._systemd = systemd
        self._root = root
        self._cgroups = cgroups
        self._network = network or DeviceNetwork.of_this_process()
        self._port = self._network.new_port()
        self.name = self._port.name
        self._holder: subprocess.Popen[bytes] | None = None
        self._inside: list[subprocess.Popen[bytes]] = []
        self._init_pid = 0

    @property
    def address(self) -> str:
        """The device's own address, at which its published ports answer."""
        return self._port.address

    @property
    def gateway(self) -> str:
        """This machine's address on the bridge: what a test's registry, controller and broker listen on."""
        return self._network.gateway

    @property
    def storage(self) -> Path:
        """What survives a power cut: the Podman store, as /var/lib/containers inside."""
        return self.folder / "lib"

    @property
    def first_process(self) -> int:
        """Its number on this machine; 0 until the device was booted."""
        return self._init_pid

    @property
    def python(self) -> str:
        """What runs our code inside, with `python_environment`."""
        return sys.executable if self._root is None else device_root.PYTHON

    @property
    def python_environment(self) -> dict[str, str]:
        return {} if self._root is None else device_root.python_environment()

    @property
    def running(self) -> bool:
        return self._holder is not None

    async def __aenter__(self) -> "SimulatedDevice":
        for name in ("lib", "copies", "etc"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for place in PLACES:
            # Where Podman has never run there is nothing yet that a device could bind its own folder over.
            place.mkdir(parents=True, exist_ok=True)
        self._write_settings()
        if self._systemd:
            device_systemd.prepare(self.folder)
        try:
            await self.boot()
        except BaseException:
            await self._discard()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._discard()

    async def boot(self) -> None:
        """Switches it on; afterwards processes can be started inside."""
        self._port.plug_in(*[self._cable.connect] if self._cable is not None else ())
        device_cgroups.create(self.name)
        booted = self.folder / "booted"
        booted.unlink(missing_ok=True)
        device_cgroups.describe(self.name, self._cgroups, self.folder)
        with (self.folder / "console.log").open("ab") as console:
            # Not in a thread: the device is to die with the thread that started it.
            self._holder = subprocess.Popen(  # noqa: ASYNC220
                self._boot_command(), stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
            )
        await self._wait(booted.exists, "boot")
        self._init_pid = _only_child(self._holder.pid)

    async def power_cut(self) -> None:
        """Everything that runs in it is gone at once; its storage stays. `boot` switches it on again."""
        if self._holder is None:
            return
        self._holder.kill()
        await asyncio.to_thread(self._holder.wait)
        self._holder = None
        await self._wait(lambda: _has_ended(self._init_pid), "power cut")
        for process in self._inside:
            await asyncio.to_thread(process.wait)
        self._inside.clear()
        self._unplug()
        await self._wait(lambda: device_cgroups.remove(self.name), "removal of its cgroups")

    async def link(self, up: bool) -> None:
        """Pulls the network cable, or puts it back."""
        self._port.set_link(up)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside."""
        enter = ["nsenter", "-t", str(self._init_pid), "-n", "-m", "-p", "-u", "-i", "-C", "--", *argv]
        return device_cgroups.joining(self.name, enter)

    def popen(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, log: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a process inside, its output in `log`; it dies with the device. `os.killpg(p.pid, signal)` ends it."""
        output = log.open("ab") if log else None
        with output or contextlib.nullcontext():
            process = subprocess.Popen(
                self.command(argv),
                env=dict(env) if env is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=output or subprocess.DEVNULL,
                stderr=subprocess.STDOUT if output else subprocess.DEVNULL,
                start_new_session=True,
            )
        self._inside.append(process)
        return process

    async def run(self, *argv: str) -> str:
        """Runs a command inside to its end; its output. AssertionError with the output where it fails."""
        process = await asyncio.create_subprocess_exec(
            *self.command(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output = (await process.communicate())[0].decode(errors="replace")
        assert process.returncode == 0, f"{' '.join(argv)} in {self.name} ended with {process.returncode}: {output}"
        return output

    async def shell(self, script: str) -> str:
        """What a shell inside says, with its errors and whether or not it succeeds."""
        return (await self.run("sh", "-c", f"({script}) 2>&1 || true")).strip()

    def console(self) -> str:
        """What the device wrote while it booted."""
        return (self.folder / "console.log").read_text(errors="replace")

    def _unplug(self) -> None:
        if self._cable is not None:
            self._cable.disconnect()
        self._port.unplug()

    def _write_settings(self) -> None:
        etc = self.folder / "etc"
        for name in ("policy.json", "registries.conf"):
            if (source := Path("/etc/containers", name)).exists():
                shutil.copy(source, etc / name)
        if self._root is not None:
            self._root.describe(self.folder)
        # Another system has runtimes of its own.
        facts = host_facts() if self._root is None else replace(host_facts(), runtime="")
        (etc / "containers.conf").write_text(render(facts, self.folder / "copies"))

    def _boot_command(self) -> list[str]:
        booted = str(self.folder / "booted")
        first = device_systemd.first_process(self.folder, booted) if self._systemd else _first_process(booted)
        init = ["bash", "-c", INIT, "init", str(self.folder), self.name, *first]
        unshare = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child=KILL"]
        unshare += ["--mount-proc", "--propagation", "private", "--", *init]
        enter = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net={self._port.namespace}", "--", *unshare]
        return device_cgroups.joining(self.name, enter)

    async def _wait(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + BOOT_DEADLINE
        while not holds():
            if time.monotonic() > deadline or (self._holder is not None and self._holder.poll() is not None):
                raise AssertionError(f"{self.name}: {what} failed: {self.console()}")
            await asyncio.sleep(0.01)

    async def _discard(self) -> None:
        await self.power_cut()
        self._unplug()
        device_cgroups.remove(self.name)
        if self._cgroups is Cgroups.V1:
            device_cgroups.remove_unmounted(self.name)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _has_ended(pid: int) -> bool:
    """A zombie has ended too: its namespaces and all that was in them are gone before it becomes one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _first_process(booted: str) -> list[str]:
    """A program that does nothing but reap children."""
    return ["sh", "-c", 'touch "$0"; exec "$1" -P', booted, _reaper()]


def _reaper() -> str:
    for candidate in ("/usr/bin/catatonit", "/usr/libexec/podman/catatonit"):
        if Path(candidate).exists():
            return candidate
    raise AssertionError("catatonit is not installed; apt-get install catatonit")
