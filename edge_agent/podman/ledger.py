"""Which images this agent fetched: the only ones that it may remove again, and what it knows to be on the device."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """How an image is called, and the size in the registry of each of its layers, by digest; none where unknown."""

    reference: str
    layers: Mapping[str, int] = field(default_factory=dict)


class Ledger:
    """Entries by the digest of the image, in a file. Losing it loses disk space at most."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> dict[str, Entry]:
        try:
            found: dict[str, Any] = json.loads(self._path.read_text())
            return {digest: _entry(known) for digest, known in found.items()}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return {}

    def record(self, digest: str, entry: Entry) -> None:
        self._write({**self.entries(), digest: entry})

    def forget(self, digest: str) -> None:
        self._write({known: entry for known, entry in self.entries().items() if known != digest})

    def missing(self, layers: Mapping[str, int]) -> int:
        """Bytes of these layers that no image of the ledger brought to the device."""
        known = {digest for entry in self.entries().values() for digest in entry.layers}
        return sum(size for digest, size in layers.items() if digest not in known)

    def _write(self, entries: Mapping[str, Entry]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({digest: asdict(entry) for digest, entry in entries.items()}, indent=1))
        fresh.replace(self._path)


def _entry(known: Any) -> Entry:
    # Earlier versions kept the reference alone.
    return Entry(known) if isinstance(known, str) else Entry(known["reference"], known.get("layers", {}))
