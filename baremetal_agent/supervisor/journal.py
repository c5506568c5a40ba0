"""The journal of systemd, for units whose end systemd cannot explain. https://systemd.io/JOURNAL_NATIVE_PROTOCOL"""

SOCKET = "/run/systemd/journal/socket"


def tell(unit: str, text: str) -> None:
    """One entry of this unit, if there is a journal that takes it."""
    # Only now: while the workload runs nothing of it is in memory.
    import _socket

    entry = f"MESSAGE={unit}: {text}\nPRIORITY=6\nSYSLOG_IDENTIFIER=longshore\nOBJECT_SYSTEMD_UNIT={unit}\n"
    sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        sender.setblocking(False)
        sender.sendto(entry.encode(), SOCKET)
    except OSError:
        # It is told in the instance's folder in any case.
        pass
    finally:
        sender.close()
