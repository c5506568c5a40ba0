"""Podman's framing of output: 8 bytes (stream, three zeros, length in network order), then that many bytes."""

import struct
from collections.abc import Iterable

HEADER = struct.Struct(">BxxxI")
STREAMS = {1: "stdout", 2: "stderr"}


def payload(pieces: Iterable[bytes], limit: int) -> bytes:
    """The output of both streams in order, without frames; no more than about `limit` bytes of it, the rest is read and
    dropped."""
    buffer, output = b"", bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= HEADER.size:
            length = HEADER.unpack_from(buffer)[1]
            if len(buffer) < HEADER.size + length:
                break
            if len(output) < limit:
                output += buffer[HEADER.size : HEADER.size + length]
            buffer = buffer[HEADER.size + length :]
    return bytes(output)
