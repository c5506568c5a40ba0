"""Ports of workloads that share the device's network: a service listens at the device's own port.

A port with a number of its own (`host_port`) is that number. Where the device picks one (0), it is the one that the
spec says the service listens at, if that is free, else any other: the service is told by variables.
"""

import errno
import socket
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path

from baremetal_agent.virtualenv.confinement import FIRST_UNPRIVILEGED_PORT
from edge_agent.runtime.backend import BackendError, Unsupported
from edge_agent.runtime.model import Port, Workload

UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def refuse_mapped(workload: Workload) -> None:
    """Raises Unsupported for a port that is to be another one on the device than inside."""
    for port in workload.ports:
        if port.host_port not in (0, port.container_port):
            numbers = f"{port.container_port} inside and {port.host_port} on the device"
            why = f"a bundle has the device's own network; give host: {port.container_port}, or auto"
            raise Unsupported(f"{workload.name}: port {port.name} cannot be {numbers}: {why}")


def first_unprivileged(setting: Path = UNPRIVILEGED) -> int:
    """From which port on everybody may listen."""
    return int(setting.read_text()) if setting.exists() else FIRST_UNPRIVILEGED_PORT


def choose_ports(workload: Workload, reserved: Collection[int]) -> tuple[tuple[str, int], ...]:
    """Name and number of each port. `reserved` are those of other instances, which may not listen yet. Raises
    BackendError "PortInUse"."""
    chosen: dict[str, int] = {}
    for port in workload.ports:
        if port.host_port and (port.host_port in reserved or not is_free(port.host_port)):
            message = f"port {port.host_port} ({port.name}) of this device is in use"
            raise BackendError("PortInUse", message, retryable=True)
        if port.host_port:
            chosen[port.name] = port.host_port
    for port in workload.ports:
        if port.name not in chosen:
            chosen[port.name] = _pick(port, {*reserved, *chosen.values()})
    return tuple((port.name, chosen[port.name]) for port in workload.ports)


def variables(workload: Workload, ports: Mapping[str, int]) -> dict[str, str]:
    """What tells the service where to listen: LONGSHORE_PORT_<NAME> for each port, and PORT for the first."""
    found = {f"LONGSHORE_PORT_{name.upper().replace('-', '_')}": str(number) for name, number in ports.items()}
    return {**found, "PORT": str(ports[workload.ports[0].name])} if workload.ports else found


def _pick(port: Port, reserved: Collection[int]) -> int:
    if port.container_port not in reserved and is_free(port.container_port):
        return port.container_port
    while (number := _any()) in reserved:
        pass
    return number


def is_free(number: int) -> bool:
    """Whether something could listen at this port on all addresses of the device."""
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family is socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((address, number))
        except PermissionError:
            # Privileged, and not for us to try.
            continue
        except OSError as error:
            if error.errno not in NO_IPV6:
                return False
    return True


def _any() -> int:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.bind(("0.0.0.0", 0))
        number: int = probe.getsockname()[1]
        return number
