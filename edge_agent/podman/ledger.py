"""Which images this agent fetched: the only ones that it may remove again."""

import json
from pathlib import Path


class Ledger:
    """Digest -> reference, in a file. Losing it loses disk space at most."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> dict[str, str]:
        try:
            found: dict[str, str] = json.loads(self._path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def record(self, digest: str, reference: str) -> None:
        self._write({**self.entries(), digest: reference})

    def forget(self, digest: str) -> None:
        self._write({known: reference for known, reference in self.entries().items() if known != digest})

    def _write(self, entries: dict[str, str]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(entries, indent=1))
        fresh.replace(self._path)
