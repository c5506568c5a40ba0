"""Other systems than this machine's for simulated devices: Debian's packages, unpacked once and kept."""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from controller.builds import host
from controller.builds.debian.apt import PrivateApt
from controller.builds.debian.system import make_system, sources_list
from controller.builds.settings import BuilderSettings

# Raised when the way to make a tree changes, so that kept ones of before are not used.
REVISION = 1
PODMAN = (
    "podman", "crun", "runc", "conmon", "netavark", "aardvark-dns", "catatonit", "iptables", "nftables", "passt",
    "slirp4netns", "uidmap",
)  # fmt: skip
TOOLS = ("python3", "curl", "iproute2", "procps", "mount", "util-linux", "ca-certificates")
PYTHON = "/usr/bin/python3"
# Of our code, for the device's Python: nothing of that comes to lie beside our code.
BYTE_CODE = "/var/cache/longshore-byte-code"

# Run with a device's folder as $1, by a shell that goes on in the other system: its own layer lies over the tree, which
# stays as it is. A real root, not one by chroot: programs without rights make no user namespace in a changed root.
ENTER = f"""
if [ -e "$1/tree" ]; then
  mkdir -p "$1/upper" "$1/work" "$1/root"
  mount -t overlay overlay -o "lowerdir=$(cat "$1/tree"),upperdir=$1/upper,workdir=$1/work" "$1/root"
  while read -r place; do mkdir -p "$1/root$place"; mount --rbind "$place" "$1/root$place"; done < "$1/places"
  while read -r file; do rm -f "$1/root$file"; done < "$1/without"
  mkdir -p "$1/root/.old"
  cd "$1/root"
  pivot_root . .old
  cd /
  umount -l /.old
  mkdir -p /var/lib/containers /etc/containers
  # What an installer writes: nobody answers for names.
  touch /etc/resolv.conf /etc/hosts
  mkdir -p -m 1777 {BYTE_CODE}
  hash -r
fi
"""


@dataclass(frozen=True)
class DeviceRoot:
    """A system's files, of which a device lacks those in `without`."""

    tree: Path
    without: tuple[str, ...] = ()

    def describe(self, folder: Path) -> None:
        """For `ENTER`. This machine's folder of temporary files and our code are to be seen at the same places."""
        places = ["/proc", "/sys", "/dev", tempfile.gettempdir(), *map(str, _code())]
        (folder / "tree").write_text(str(self.tree))
        (folder / "places").write_text("".join(f"{place}\n" for place in places))
        (folder / "without").write_text("".join(f"{path}\n" for path in self.without))


def _code() -> tuple[Path, ...]:
    """Our repository, and the packages of others that the agents import: those of Python alone run on each version."""
    others = Path(str(distribution("structlog").locate_file("")))
    return Path(__file__).parents[2], others


def python_environment() -> dict[str, str]:
    """With which Python of another system finds our code."""
    repository, others = _code()
    path = (repository, repository / "protos", others)
    return {"PYTHONPATH": ":".join(map(str, path)), "PYTHONPYCACHEPREFIX": BYTE_CODE}


async def debian_with_podman(suite: str) -> Path:
    """The tree of a Debian system of this name with Podman, kept for other runs."""
    return await asyncio.to_thread(_kept, suite, (*PODMAN, *TOOLS))


def _kept(suite: str, packages: tuple[str, ...]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "longshore-tests", "systems")
    cache.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(json.dumps([REVISION, suite, sorted(packages)]).encode()).hexdigest()[:12]
    tree = cache / f"{suite}-{key}"
    with (cache / f"{tree.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            _make(suite, packages, tree)
    return tree


def _make(suite: str, packages: tuple[str, ...], tree: Path) -> None:
    work = tree.with_suffix(".part")
    shutil.rmtree(work, ignore_errors=True)
    (work / "tree").mkdir(parents=True)
    told = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True)
    asyncio.run(_write(suite, packages, told.stdout.strip(), work))
    subprocess.run(["tar", "-xf", work / "tree.tar", "-C", work / "tree"], check=True)
    (work / "tree").rename(tree)
    shutil.rmtree(work)


async def _write(suite: str, packages: tuple[str, ...], architecture: str, work: Path) -> None:
    settings = BuilderSettings()
    apt = PrivateApt(work / "apt", architecture, await host.read(settings), dict(os.environ))
    sources = sources_list(suite, settings.bootstrap_mirror)
    await make_system(apt, sources, packages, work / "tree.tar", lambda *_: None)
