"""Whether a new revision can start while the old one still runs. Pure."""

from edge_agent.runtime.model import ArtifactKind, UpdateStrategy, Workload


def obstacle(new: Workload, old: Workload) -> str:
    """Why `old` has to stop before `new` starts; empty where both can run side by side.

    Asked to start first, a new revision does: where that cannot be, its start fails and says so.
    """
    if new.update is UpdateStrategy.STOP_FIRST:
        return "as its update strategy says"
    if new.update is UpdateStrategy.START_FIRST:
        return ""
    return _port_in_the_way(new, old) or _shared_state(new, old) or _shared_devices(new, old)


def _port_in_the_way(new: Workload, old: Workload) -> str:
    both = _ports_of_the_device(new) & _ports_of_the_device(old)
    return f"both want port {min(both)} of the device" if both else ""


def _ports_of_the_device(workload: Workload) -> set[int]:
    """A bundle listens in the device's own network, and not every service goes by the port that it is told."""
    if workload.artifact.kind is ArtifactKind.BUNDLE:
        return {port.container_port for port in workload.ports}
    return {port.host_port for port in workload.ports if port.host_port}


def _shared_state(new: Workload, old: Workload) -> str:
    """Few programs bear a second one that writes to the same files."""
    volumes = {volume.name for volume in old.volumes if not volume.read_only}
    folders = {mount.source for mount in old.mounts if not mount.read_only}
    shared = [volume.name for volume in new.volumes if volume.name in volumes]
    shared += [mount.source for mount in new.mounts if mount.source in folders]
    return f"both use {shared[0]}, which is written to" if shared else ""


def _shared_devices(new: Workload, old: Workload) -> str:
    """An accelerator's memory seldom holds two models, and many have one user at a time."""
    shared = [device for device in new.devices if device in old.devices]
    return f"both use {shared[0]}" if shared else ""
