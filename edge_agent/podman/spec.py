"""From a workload to the container that Podman is asked for (libpod's SpecGenerator, as JSON)."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.podman.security import restrictions, scratch
from edge_agent.runtime.model import Mount, Resources, Workload
from edge_agent.runtime.shares import thread_variables

LABEL = "dev.longshore"
CPU_PERIOD = 100_000
VOLUME_PREFIX = "longshore-"
LOG_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True)
class Setting:
    """What a container depends on besides its workload: user and names of variables of its image, the cores that it is
    to see, and where its secrets are."""

    image_user: str = ""
    image_variables: frozenset[str] = frozenset()
    cpu_set: str = ""
    secret_folder: str = ""
    secret_files: Mapping[str, Path] = field(default_factory=dict)
    # Target -> folder on this device, of project volumes.
    contents: Mapping[str, Path] = field(default_factory=dict)


def owner_label(owner: str) -> str:
    """What marks the containers of one agent; a filter for lists."""
    return f"{LABEL}.owner={owner}"


def container_name(workload: Workload) -> str:
    return f"longshore-{workload.name}-r{workload.revision}-{secrets.token_hex(3)}"


def volume_name(deployment_id: str, name: str) -> str:
    """The name by which Podman knows a deployment's volume."""
    return f"{VOLUME_PREFIX}{deployment_id}-{name}"


def create_body(workload: Workload, owner: str, setting: Setting) -> dict[str, object]:
    """The body of `POST containers/create`."""
    host_network = "host-network" in workload.allow
    body: dict[str, object] = {
        "name": container_name(workload),
        "image": workload.artifact.reference,
        "labels": _labels(workload, owner, setting),
        "env": _environment(workload, setting),
        "portmappings": [] if host_network else [_port(p.container_port, p.host_port) for p in workload.ports],
        "mounts": _mounts(workload, setting),
        "volumes": [
            {"Name": volume_name(workload.deployment_id, v.name), "Dest": v.target, "Options": ["ro"] * v.read_only}
            for v in workload.volumes
        ],
        "resource_limits": _limits(workload.resources, setting.cpu_set),
        "log_configuration": {"driver": "k8s-file", "size": LOG_BYTES},
        "restart_policy": "no",
        "stop_timeout": 0,
        **restrictions(workload, setting.image_user),
    }
    if workload.resources.shared_memory_bytes:
        body["shm_size"] = workload.resources.shared_memory_bytes
    if workload.entrypoint:
        body |= {"entrypoint": list(workload.entrypoint), "command": []}
    if workload.working_dir:
        body["work_dir"] = workload.working_dir
    if workload.devices:
        body["devices"] = [{"path": name} for name in workload.devices]
    return body


def _labels(workload: Workload, owner: str, setting: Setting) -> dict[str, str]:
    values = {
        "owner": owner,
        "deployment": workload.deployment_id,
        "revision": str(workload.revision),
        "digest": workload.artifact.digest,
        "name": workload.name,
        "user": workload.user_id,
        "project": workload.project_id,
        "ports": ",".join(f"{port.name}={port.container_port}" for port in workload.ports),
        "network": "host" if "host-network" in workload.allow else "bridge",
        "cores": setting.cpu_set,
        "secrets": setting.secret_folder,
        "volumes": ",".join(volume.digest for volume in workload.project_volumes),
    }
    return {f"{LABEL}.{key}": value for key, value in values.items()}


def _environment(workload: Workload, setting: Setting) -> dict[str, str]:
    given = dict(workload.environment)
    return {**thread_variables(workload.resources, setting.image_variables | given.keys()), **given}


def _port(container_port: int, host_port: int) -> dict[str, object]:
    return {"container_port": container_port, "host_port": host_port, "protocol": "tcp"}


def _mounts(workload: Workload, setting: Setting) -> list[dict[str, object]]:
    secret = [Mount(str(path), target) for target, path in setting.secret_files.items()]
    contents = [Mount(str(path), target) for target, path in setting.contents.items()]
    return [*scratch(workload), *(_mount(mount) for mount in (*workload.mounts, *contents, *secret))]


def _mount(mount: Mount) -> dict[str, object]:
    options = ["rbind", "ro" if mount.read_only else "rw"]
    return {"type": "bind", "source": mount.source, "destination": mount.target, "options": options}


def _limits(resources: Resources, cpu_set: str) -> dict[str, object]:
    limits: dict[str, object] = {}
    cpu: dict[str, object] = {}
    if resources.cpu_millis:
        cpu |= {"period": CPU_PERIOD, "quota": resources.cpu_millis * CPU_PERIOD // 1000}
    if cpu_set:
        cpu["cpus"] = cpu_set
    if cpu:
        limits["cpu"] = cpu
    if resources.memory_bytes:
        limits["memory"] = {"limit": resources.memory_bytes}
    if resources.pids:
        limits["pids"] = {"limit": resources.pids}
    return limits
