"""Whether a backend can do what a workload asks for. Pure."""

from collections.abc import Iterator

from edge_agent.runtime.backend import Capabilities, Unsupported
from edge_agent.runtime.model import Workload


def refuse_unsupported(workload: Workload, capabilities: Capabilities) -> None:
    """Raises Unsupported with everything that the workload asks for and the backend cannot do here."""
    if lacking := list(_lacking(workload, capabilities)):
        raise Unsupported(f"{workload.name}: this device's backend has no {', no '.join(lacking)}")


def _lacking(workload: Workload, capabilities: Capabilities) -> Iterator[str]:
    if workload.artifact.kind not in capabilities.artifacts:
        yield f"way to run an artifact of kind {workload.artifact.kind.value}"
    limits = workload.resources
    wanted = {
        "mounts": (workload.mounts, capabilities.mounts),
        "volumes": (workload.volumes, capabilities.volumes),
        "project volumes": (workload.project_volumes, capabilities.project_volumes),
        "secrets": (workload.secrets, capabilities.secrets),
        "devices": (workload.devices, capabilities.devices),
        "limit of CPU time": (limits.cpu_millis, capabilities.cpu_limit),
        "limit of memory": (limits.memory_bytes, capabilities.memory_limit),
        "limit of processes": (limits.pids, capabilities.pids_limit),
        "limit of shared memory": (limits.shared_memory_bytes, capabilities.shared_memory_limit),
        "choice of cores": (limits.cpu_set, capabilities.cpu_set),
    }
    for name, (asked, able) in wanted.items():
        if asked and not able:
            yield name


def described(capabilities: Capabilities) -> list[str]:
    """For a device's facts: what the backend can do and by what means, sorted: "exec", "limits:cgroup-v1"."""
    flags = [name.replace("_", "-") for name, value in vars(capabilities).items() if value is True]
    kinds = [f"artifact:{kind.value}" for kind in capabilities.artifacts]
    means = {
        "limits": capabilities.limits_by,
        "isolation": capabilities.isolation,
        "supervision": capabilities.supervision,
    }
    return sorted([*flags, *kinds, *(f"{name}:{value}" for name, value in means.items() if value)])
