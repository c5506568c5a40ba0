"""What a workload may have of the device, and as whom it runs. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from edge_agent.runtime.backend import Unsupported
from edge_agent.runtime.model import Resources, Workload

ROOT, WRITABLE_ROOT, HOST_PID, HOST_IPC = "root", "writable-root", "host-pid", "host-ipc"
NEW_PRIVILEGES = "new-privileges"
NET_BIND_SERVICE = "CAP_NET_BIND_SERVICE"
FIRST_UNPRIVILEGED_PORT = 1024
SETPRIV = "/usr/bin/setpriv"
# For whom there are no rights to be dropped.
NO_NEW_RIGHTS = (SETPRIV, "--no-new-privs", "--")
SHARED_MEMORY = 64 * 1024 * 1024


@dataclass(frozen=True)
class Confinement:
    """`uid` None is the agent's own user; `groups` are those that its devices belong to; `allow` as in the spec."""

    uid: int | None = None
    groups: tuple[int, ...] = ()
    allow: frozenset[str] = frozenset()
    resources: Resources = field(default_factory=Resources)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """As capabilities(7) writes them."""
        return tuple(sorted(name for name in self.allow if name.startswith("CAP_")))

    @property
    def shared_memory(self) -> int:
        """Bytes of /dev/shm."""
        return self.resources.shared_memory_bytes or SHARED_MEMORY


def refuse_loosened(workload: Workload) -> None:
    """Raises Unsupported for what no sandbox of this backend can loosen."""
    if NEW_PRIVILEGES in workload.allow:
        raise Unsupported(f"{workload.name}: a bundle cannot gain privileges; remove {NEW_PRIVILEGES} from allow")


def refuse_open(workload: Workload, lacking: str, *, root: bool) -> None:
    """Raises Unsupported for a workload that would get what it does not name: where there is no sandbox, for the reason
    `lacking`, it sees and may change all that the agent may. `root`: the agent is root."""
    open_to = {WRITABLE_ROOT, HOST_PID, HOST_IPC, *({ROOT} if root else ())}
    if lacking and (unnamed := sorted(open_to - workload.allow)):
        todo = f"mend that, or name {', '.join(unnamed)} in deploy.allow"
        raise Unsupported(f"{workload.name}: this device has no sandbox ({lacking}); {todo}")


def refuse_rights(workload: Workload, unprivileged_from: int) -> None:
    """Raises Unsupported for rights of root's, which an agent that is not root cannot give. `unprivileged_from` is the
    first port at which everybody may listen."""
    if rights := sorted(name for name in workload.allow if name == ROOT or name.startswith("CAP_")):
        raise Unsupported(f"{workload.name}: this device's agent is not root and cannot give {', '.join(rights)}")
    for port in workload.ports:
        if 0 < port.host_port < unprivileged_from:
            what = f"port {port.host_port} ({port.name}) is for root, which this device's agent is not"
            raise Unsupported(f"{workload.name}: {what}; take one from {unprivileged_from} on")


def allowed(workload: Workload, ports: Iterable[int]) -> frozenset[str]:
    """What the spec names, and the right to listen at the ports that it wants."""
    low = any(port < FIRST_UNPRIVILEGED_PORT for port in ports)
    return workload.allow | ({NET_BIND_SERVICE} if low else frozenset())


def dropping(confinement: Confinement) -> list[str]:
    """The command (setpriv(1)) before the one that is to run as its own user without any rights of root's."""
    names = [name.removeprefix("CAP_").lower() for name in confinement.capabilities]
    given = ",".join(f"+{name}" for name in names)
    argv = [SETPRIV]
    if confinement.uid is not None:
        argv += [f"--reuid={confinement.uid}", f"--regid={confinement.uid}"]
        argv += [f"--groups={','.join(map(str, confinement.groups))}"] if confinement.groups else ["--clear-groups"]
    argv += [f"--bounding-set=-all{',' + given if given else ''}", f"--inh-caps=-all{',' + given if given else ''}"]
    argv += [f"--ambient-caps={given}"] if given else []
    return [*argv, "--no-new-privs", "--"]
