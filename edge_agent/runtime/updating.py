"""Whether a new revision can start while the old one still runs. Pure."""

from edge_agent.runtime.model import UpdateStrategy, Workload


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
    taken = {port.host_port for port in old.ports if port.host_port}
    wanted = [port for port in new.ports if port.host_port in taken]
    return f"both want port {wanted[0].host_port} of the device" if wanted else ""


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
