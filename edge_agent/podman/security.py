"""What a container may do: nothing but what its spec loosens by name (`longshore.v1.WorkloadSpec.allow`)."""

from edge_agent.runtime.model import Workload

FIRST_UNPRIVILEGED_PORT = 1024
# The user in place of root, as images are built with.
USER = "1000:1000"
ROOT = ("", "0", "root")
SCRATCH = ("/tmp", "/var/tmp", "/run")


def restrictions(workload: Workload, image_user: str) -> dict[str, object]:
    """The part of a container's body that takes rights away. `image_user`: as the image names it."""
    allow = workload.allow
    body: dict[str, object] = {
        "no_new_privileges": "new-privileges" not in allow,
        "cap_drop": ["ALL"],
        "cap_add": capabilities(workload),
        "read_only_filesystem": "writable-root" not in allow,
        "netns": {"nsmode": "host" if "host-network" in allow else "bridge"},
        "pidns": {"nsmode": "host" if "host-pid" in allow else "private"},
        "ipcns": {"nsmode": "host" if "host-ipc" in allow else "private"},
    }
    if "seccomp-unconfined" in allow:
        body["seccomp_profile_path"] = "unconfined"
    if "root" not in allow and is_root(image_user):
        body["user"] = USER
    return body


def is_root(user: str) -> bool:
    """Whether this is root, by "user" or "user:group" of an image's configuration."""
    return user.partition(":")[0] in ROOT


def capabilities(workload: Workload) -> list[str]:
    """Those that are allowed by name, and to listen on a port that is kept for privileged programs."""
    named = {name.removeprefix("CAP_") for name in workload.allow if name.startswith("CAP_")}
    if any(port.container_port < FIRST_UNPRIVILEGED_PORT for port in workload.ports):
        named.add("NET_BIND_SERVICE")
    return sorted(named)


def scratch(workload: Workload) -> list[dict[str, object]]:
    """Places in memory to write to, where the root is read-only and nothing else is mounted there."""
    if "writable-root" in workload.allow:
        return []
    taken = {mount.target for mount in workload.mounts} | {volume.target for volume in workload.volumes}
    options = ["rw", "nosuid", "nodev", "mode=1777"]
    return [
        {"type": "tmpfs", "source": "tmpfs", "destination": path, "options": options}
        for path in SCRATCH
        if path not in taken
    ]
