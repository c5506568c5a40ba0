"""The short names under which the layers of a store are mounted."""

from collections.abc import Iterable

from edge_agent.podman.storage.store import Store
from edge_agent.runtime.files import write_durably


def mend_names(store: Store, layers: Iterable[str]) -> list[str]:
    """Afterwards no layer has an empty file instead of its short name; the ids of those that had.

    Podman makes a new name where the file is lacking; where it is empty, it mounts containers without the layer.
    """
    mended = []
    for layer in layers:
        path = store.folder(layer) / "link"
        if path.is_file() and not path.read_text(errors="replace").strip("\0 \n"):
            name = _name(store, layer)
            if name:
                write_durably(path, name.encode(), 0o644)
            else:
                path.unlink()
            mended.append(layer)
    return mended


def _name(store: Store, layer: str) -> str:
    links = store.root / "overlay" / "l"
    if not links.is_dir():
        return ""
    target = f"../{layer}/diff"
    return next((link.name for link in links.iterdir() if link.is_symlink() and str(link.readlink()) == target), "")
