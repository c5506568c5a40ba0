"""Which layers are known to be whole on the disk, whatever happens to the power.

The kernel writes a file's content some time after Podman has noted the layer as complete. A layer counts as sound once
everything was written out, and never has to be read again to know that.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from edge_agent.podman.storage.store import Layer
from edge_agent.runtime.files import write_durably


class SoundLayers:
    """In a file. Losing it costs reading the layers of images that are fetched afterwards."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def unknown(self, layers: Iterable[Layer]) -> frozenset[str]:
        """Ids of those that nobody has written out or read."""
        known = self._read()
        return frozenset(layer.id for layer in layers if known.get(layer.id) != layer.mark)

    def record(self, layers: Iterable[Layer], present: Iterable[Layer]) -> None:
        """These are sound; of all others only those that are `present` are remembered."""
        known = self._read()
        kept = {layer.id: layer.mark for layer in present if known.get(layer.id) == layer.mark}
        fresh = {**kept, **{layer.id: layer.mark for layer in layers}}
        if fresh != known:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self._path, json.dumps(fresh, indent=1).encode(), 0o600)

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def write_out(folder: Path) -> None:
    """Afterwards everything on this folder's file system is on its disk. Blocks."""
    import ctypes

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
