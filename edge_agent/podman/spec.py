"""From a workload to the container that Podman is asked for (libpod's SpecGenerator, as JSON)."""

import secrets

from edge_agent.runtime.model import Mount, Resources, Workload

LABEL = "dev.longshore"
CPU_PERIOD = 100_000
LOG_BYTES = 10 * 1024 * 1024
FIRST_UNPRIVILEGED_PORT = 1024


def owner_label(owner: str) -> str:
    """What marks the containers of one agent; a filter for lists."""
    return f"{LABEL}.owner={owner}"


def container_name(workload: Workload) -> str:
    return f"longshore-{workload.name}-r{workload.revision}-{secrets.token_hex(3)}"


def create_body(workload: Workload, owner: str) -> dict[str, object]:
    """The body of `POST containers/create`."""
    body: dict[str, object] = {
        "name": container_name(workload),
        "image": workload.artifact.reference,
        "labels": _labels(workload, owner),
        "env": dict(workload.environment),
        "netns": {"nsmode": "bridge"},
        "portmappings": [_port(port.container_port, port.host_port) for port in workload.ports],
        "mounts": [_mount(mount) for mount in workload.mounts],
        "resource_limits": _limits(workload.resources),
        "log_configuration": {"driver": "k8s-file", "size": LOG_BYTES},
        "restart_policy": "no",
        "stop_timeout": 0,
        "no_new_privileges": True,
        "cap_drop": ["ALL"],
        "cap_add": _capabilities(workload),
    }
    if workload.entrypoint:
        body |= {"entrypoint": list(workload.entrypoint), "command": []}
    if workload.working_dir:
        body["work_dir"] = workload.working_dir
    if workload.devices:
        body["devices"] = [{"path": name} for name in workload.devices]
    return body


def _labels(workload: Workload, owner: str) -> dict[str, str]:
    values = {
        "owner": owner,
        "deployment": workload.deployment_id,
        "revision": str(workload.revision),
        "digest": workload.artifact.digest,
        "name": workload.name,
        "user": workload.user_id,
        "project": workload.project_id,
        "ports": ",".join(f"{port.name}={port.container_port}" for port in workload.ports),
    }
    return {f"{LABEL}.{key}": value for key, value in values.items()}


def _port(container_port: int, host_port: int) -> dict[str, object]:
    return {"container_port": container_port, "host_port": host_port, "protocol": "tcp"}


def _mount(mount: Mount) -> dict[str, object]:
    options = ["rbind", "ro" if mount.read_only else "rw"]
    return {"type": "bind", "source": mount.source, "destination": mount.target, "options": options}


def _limits(resources: Resources) -> dict[str, object]:
    limits: dict[str, object] = {}
    if resources.cpu_millis:
        limits["cpu"] = {"period": CPU_PERIOD, "quota": resources.cpu_millis * CPU_PERIOD // 1000}
    if resources.memory_bytes:
        limits["memory"] = {"limit": resources.memory_bytes}
    if resources.pids:
        limits["pids"] = {"limit": resources.pids}
    return limits


def _capabilities(workload: Workload) -> list[str]:
    """None, but to listen on a port that is kept for privileged programs."""
    low = any(port.container_port < FIRST_UNPRIVILEGED_PORT for port in workload.ports)
    return ["NET_BIND_SERVICE"] if low else []
