"""Artifacts that are to be removed from the registry unless some build has them: noted when they are pushed, and before
their builds are forgotten, so that no failure, no kill and no registry that is down leaves them there for ever."""

import json
import threading
from collections.abc import Collection
from pathlib import Path

import structlog

from controller.files import write_durably
from controller.housekeeping.plan import Artifact

log = structlog.get_logger()


class Journal:
    """A small file. Any thread may call; one Journal per file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changing = threading.Lock()

    def read(self) -> set[Artifact]:
        try:
            return {Artifact(*entry) for entry in json.loads(self._path.read_text())}
        except FileNotFoundError:
            return set()

    def note(self, user_id: str, project_id: str, repository: str, digest: str) -> None:
        """As `controller.builds.pushed.OnPushed`. A build does not fail because it cannot be noted."""
        try:
            self.add([Artifact(user_id, project_id, repository, digest)])
        except OSError:
            log.exception("an artifact cannot be noted; it stays if its build fails", digest=digest)

    def add(self, artifacts: Collection[Artifact]) -> None:
        """Afterwards these are noted too, also after a power cut."""
        with self._changing:
            self._write(self.read() | set(artifacts))

    def remove(self, artifacts: Collection[Artifact]) -> None:
        """Afterwards these are not noted any more."""
        with self._changing:
            self._write(self.read() - set(artifacts))

    def _write(self, artifacts: set[Artifact]) -> None:
        if artifacts:
            write_durably(self._path, json.dumps(sorted(artifacts)).encode())
        else:
            self._path.unlink(missing_ok=True)
