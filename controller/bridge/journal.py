"""What was asked for, on disk: one small file for each project, so that a bridge that was killed goes on."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import structlog

from controller.bridge.model import Entry, Key, Status
from controller.files import write_durably

log = structlog.get_logger()


class Journal:
    """The last asking of each project. What `put` and `change` wrote survives a power cut."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries = {entry.key: entry for entry in _read(folder)}

    def get(self, key: Key) -> Entry | None:
        return self._entries.get(key)

    def all(self) -> list[Entry]:
        return list(self._entries.values())

    def put(self, entry: Entry) -> None:
        """OSError where it cannot be written: then the entry before is still the last one."""
        name = hashlib.sha256(f"{entry.key.user_id}\0{entry.key.project_id}".encode()).hexdigest()
        write_durably(self._folder / f"{name}.json", json.dumps(asdict(entry)).encode())
        self._entries[entry.key] = entry

    def change(self, entry: Entry) -> None:
        """As `put`, unless something else was asked for meanwhile."""
        now = self._entries.get(entry.key)
        if now is not None and now.request_id == entry.request_id and now != entry:
            self.put(entry)


def _read(folder: Path) -> Iterator[Entry]:
    for path in sorted(folder.glob("*.json")):
        try:
            yield _entry(path.read_bytes())
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("an entry of the bridge cannot be read and is left out", file=str(path), error=str(error))


def _entry(data: bytes) -> Entry:
    fields = json.loads(data)
    fields["key"] = Key(**fields["key"])
    fields["names"] = tuple(fields["names"])
    fields["seen"] = Status(fields["seen"])
    fields["end"] = Status(fields["end"]) if fields["end"] else None
    return Entry(**fields)
