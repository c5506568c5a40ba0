"""The short names under which the layers of a store are mounted."""

from collections.abc import Sequence
from pathlib import Path

from edge_agent.podman.storage.store import Store
from edge_agent.runtime.files import write_durably


def mend_names(store: Store, chain: Sequence[str]) -> list[str]:
    """Afterwards each layer of a chain, the topmost first, has its short name, and those of the layers below it; the
    ids of those that had an empty file instead.

    Podman makes a new name where the file is lacking; where it is empty, it mounts containers without the layer.
    """
    unnamed = [layer for layer in chain if _is_empty(store.folder(layer) / "link")]
    for layer in unnamed:
        path = store.folder(layer) / "link"
        if name := _name(store, layer):
            write_durably(path, name.encode(), 0o644)
        else:
            path.unlink()
    return unnamed + [layer for at, layer in enumerate(chain) if _mend_below(store, layer, chain[at + 1 :])]


def _mend_below(store: Store, layer: str, below: Sequence[str]) -> bool:
    path, links = store.folder(layer) / "lower", [store.folder(lower) / "link" for lower in below]
    if not below or not path.parent.is_dir() or not all(link.is_file() for link in links):
        return False
    if path.exists() and not _is_empty(path):
        return False
    write_durably(path, ":".join(f"l/{link.read_text()}" for link in links).encode(), 0o644)
    return True


def _is_empty(path: Path) -> bool:
    """So is a file of zeroes, as some file systems leave it."""
    return path.is_file() and not path.read_text(errors="replace").strip("\0 \n")


def _name(store: Store, layer: str) -> str:
    links = store.root / "overlay" / "l"
    if not links.is_dir():
        return ""
    target = f"../{layer}/diff"
    return next((link.name for link in links.iterdir() if link.is_symlink() and str(link.readlink()) == target), "")
