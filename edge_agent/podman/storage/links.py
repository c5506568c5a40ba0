"""The short names under which the layers of a store are mounted.

Each layer has a file `link` with its name, and one `lower` with the names of all layers below it; `l/NAME` is a link
to its files (overlay.go of github.com/containers/storage).
"""

import base64
import secrets
from collections.abc import Sequence
from pathlib import Path

from edge_agent.podman.storage.store import Store
from edge_agent.runtime.files import write_durably

NAME_LENGTH = 26


def mend_names(store: Store, chain: Sequence[str]) -> list[str]:
    """Afterwards each layer of a chain, the topmost first, has its short name, and those of the layers below it; the
    ids of those that had an empty file, none, or other names instead.

    Where the file is lacking Podman looks for a link, and gives up where any layer's link leads nowhere.
    With an empty file Podman mounts containers without the layer, and writes into what it builds upon it what it cannot
    read any more. Where it deletes a layer with an empty file, Podman 4.3 deletes the symbolic links of all layers.
    """
    unnamed = [layer for layer in chain if store.folder(layer).is_dir() and not _has_name(store.folder(layer) / "link")]
    for layer in unnamed:
        write_durably(store.folder(layer) / "link", (_name(store, layer) or _new_name(store, layer)).encode(), 0o644)
    return unnamed + [layer for at, layer in enumerate(chain) if _mend_below(store, layer, chain[at + 1 :])]


def _mend_below(store: Store, layer: str, below: Sequence[str]) -> bool:
    path, links = store.folder(layer) / "lower", [store.folder(lower) / "link" for lower in below]
    if not below or not path.parent.is_dir() or not all(link.is_file() for link in links):
        return False
    names = ":".join(f"l/{link.read_text()}" for link in links)
    if path.exists() and path.read_text(errors="replace") == names:
        return False
    write_durably(path, names.encode(), 0o644)
    return True


def _has_name(path: Path) -> bool:
    """A file of zeroes, as some file systems leave it, has none."""
    return path.is_file() and bool(path.read_text(errors="replace").strip("\0 \n"))


def links_to(store: Store, layer: str) -> list[Path]:
    """All of a layer's links; there is more than one where its folder was lost and made again."""
    links, target = store.root / "overlay" / "l", _target(layer)
    if not links.is_dir():
        return []
    return [link for link in links.iterdir() if link.is_symlink() and str(link.readlink()) == target]


def _name(store: Store, layer: str) -> str:
    return next((link.name for link in links_to(store, layer)), "")


def _new_name(store: Store, layer: str) -> str:
    name = base64.b32encode(secrets.token_bytes(NAME_LENGTH)).decode()[:NAME_LENGTH]
    links = store.root / "overlay" / "l"
    links.mkdir(mode=0o755, exist_ok=True)
    (links / name).symlink_to(_target(layer))
    return name


def _target(layer: str) -> str:
    return f"../{layer}/diff"
