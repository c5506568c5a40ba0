"""How much room folders take. Looking at all of a builder's storage takes long: it is done once, layer by layer."""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

# Where storage drivers have their layers, below the storage.
LAYERS = ("overlay/*", "vfs/dir/*")


class StorageSize:
    """Of a storage as it was when this was made; less what was removed of its layers since."""

    def __init__(self, storage: Path) -> None:
        """Blocks for as long as looking at each file takes."""
        layers = [layer for pattern in LAYERS for layer in storage.glob(pattern)]
        self._layers = {layer: size_below(layer) for layer in layers}
        self._rest = size_below(storage, frozenset(layers))

    def bytes(self) -> int:
        """Takes a moment."""
        return self._rest + sum(size for layer, size in self._layers.items() if layer.exists())


def size_below(folder: Path, apart: Collection[Path] = frozenset()) -> int:
    """Bytes on disk, each file once, without the folders `apart`, and nothing of other file systems: layers that are
    mounted lie there once more."""
    try:
        device = folder.stat().st_dev
    except FileNotFoundError:
        return 0
    seen: set[int] = set()
    total = 0
    for parent, folders, files in os.walk(folder):
        inside = [Path(parent, name) for name in folders]
        folders[:] = [path.name for path in inside if path not in apart and _device(path) == device]
        for name in files:
            try:
                status = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - a million of them
            except FileNotFoundError:
                continue
            if status.st_nlink == 1 or status.st_ino not in seen:
                seen.add(status.st_ino)
                total += status.st_blocks * 512
    return total


def last_use(folder: Path) -> float:
    """When something below was last read or written, in seconds since the epoch; as exact as the mount says."""
    newest = folder.stat().st_mtime
    for parent, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                status = Path(parent, name).lstat()
                newest = max(newest, status.st_mtime, status.st_atime)
    return newest


def _device(path: Path) -> int:
    try:
        return path.lstat().st_dev
    except FileNotFoundError:
        return -1
