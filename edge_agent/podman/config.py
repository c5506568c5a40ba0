"""The containers.conf with which Podman works on this host, also a restricted one.

Format: containers.conf(5). Podman's own defaults fail where limits cannot be raised, where systemd does not run, or
where crun meets cgroup v1; what is set here is what the host can do.
"""

import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

HELPER_FOLDERS = ("/usr/local/libexec/podman", "/usr/local/lib/podman", "/usr/libexec/podman", "/usr/lib/podman")
# There under version 2 alone.
CONTROLLERS = Path("/sys/fs/cgroup/cgroup.controllers")
MOST_FILES = 65536
MOST_PROCESSES = 32768


@dataclass(frozen=True)
class HostFacts:
    """What decides Podman's settings. `runtime` and `network_backend` are empty where Podman's default is right;
    `counts_processes`: control groups can limit their number, as Podman wants to for each container."""

    open_files: int
    processes: int
    systemd: bool
    runtime: str
    network_backend: str
    counts_processes: bool = True


def host_facts() -> HostFacts:
    """This host as it is now."""
    return HostFacts(
        open_files=_limit(resource.RLIMIT_NOFILE, MOST_FILES),
        processes=_limit(resource.RLIMIT_NPROC, MOST_PROCESSES),
        systemd=Path("/run/systemd/system").is_dir(),
        runtime=_runtime(),
        network_backend="netavark" if _has_helper("netavark") else "",
        counts_processes=_counts_processes(),
    )


def render(facts: HostFacts, copy_folder: Path) -> str:
    """The text of containers.conf; layers on their way are kept below `copy_folder`."""
    engine = [
        f'cgroup_manager = "{"systemd" if facts.systemd else "cgroupfs"}"',
        'events_logger = "file"',
        # Each command inside a container would else keep two helper processes for five minutes.
        "exit_command_delay = 5",
        # One layer after the other, so that a pull that was cut off goes on with the layers that are not complete.
        "image_parallel_copies = 1",
        f'image_copy_tmp_dir = "{copy_folder}"',
    ]
    if facts.runtime:
        engine.append(f'runtime = "{facts.runtime}"')
    ulimits = f'["nofile={facts.open_files}:{facts.open_files}", "nproc={facts.processes}:{facts.processes}"]'
    containers = [f"default_ulimits = {ulimits}", 'log_driver = "k8s-file"']
    if not facts.counts_processes:
        # The runtimes refuse a limit that cannot be kept, also Podman's own.
        containers.append("pids_limit = 0")
    lines = ["[containers]", *containers, "[engine]", *engine]
    if facts.network_backend:
        lines += ["[network]", f'network_backend = "{facts.network_backend}"']
    return "\n".join(lines) + "\n"


def _limit(kind: int, most: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return most if hard == resource.RLIM_INFINITY else min(hard, most)


def unmounted_hierarchies(root: Path = Path("/")) -> list[str]:
    """Hierarchies of version 1 that the kernel has and that are not mounted where programs look for them; none under
    version 2 alone."""
    place = root / "sys/fs/cgroup"
    if (place / CONTROLLERS.name).exists():
        return []
    lines = (root / "proc/self/cgroup").read_text().splitlines()
    names = [line.split(":")[1].removeprefix("name=") for line in lines]
    return [name for name in names if name and not (place / name).exists()]


def _counts_processes() -> bool:
    """Version 2 without the controller is what a container gets to which none is delegated."""
    return not CONTROLLERS.exists() or "pids" in CONTROLLERS.read_text().split()


def _runtime() -> str:
    """crun fails where a hierarchy of v1 is not mounted; runc does not mind."""
    if shutil.which("runc") and not (CONTROLLERS.exists() and shutil.which("crun")):
        return "runc"
    return ""


def _has_helper(name: str) -> bool:
    return any(Path(folder, name).exists() for folder in HELPER_FOLDERS)
