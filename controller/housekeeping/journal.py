"""Artifacts that are to be removed from the registry: noted before their builds are forgotten, so that no kill and no
registry that is down leaves them there for ever."""

import json
from collections.abc import Collection
from pathlib import Path

from controller.files import write_durably
from controller.housekeeping.plan import Artifact


class Journal:
    """A small file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> set[Artifact]:
        try:
            return {Artifact(*entry) for entry in json.loads(self._path.read_text())}
        except FileNotFoundError:
            return set()

    def add(self, artifacts: Collection[Artifact]) -> None:
        """Afterwards these are noted too, also after a power cut."""
        self._write(self.read() | set(artifacts))

    def remove(self, artifacts: Collection[Artifact]) -> None:
        """Afterwards these are not noted any more."""
        self._write(self.read() - set(artifacts))

    def _write(self, artifacts: set[Artifact]) -> None:
        if artifacts:
            write_durably(self._path, json.dumps(sorted(artifacts)).encode())
        else:
            self._path.unlink(missing_ok=True)
