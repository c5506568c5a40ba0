"""Addresses as people and the contract write them: `host:port`."""

import socket


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`. Raises ValueError."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is not an address; expected host:port")
    return host, int(port)


def local_address_towards(address: str) -> str:
    """The address of this machine that a connection to `host:port` would come from. Blocks for the name lookup.

    Raises OSError where there is no way there. Nothing is sent: connecting a datagram socket only picks the route.
    """
    host, port = parse_address(address)
    family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(target)
        local: str = probe.getsockname()[0]
        return local
