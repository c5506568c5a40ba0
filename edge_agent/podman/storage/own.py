"""What has to be known of Podman's storage where Podman cannot be asked."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.runtime.files import write_durably


@dataclass(frozen=True)
class Known:
    """`root` is where the store lies, empty while unknown; `containers` are the ids of this agent's."""

    root: str = ""
    containers: tuple[str, ...] = ()


class Notes:
    """In a file, written when something changed. Losing it makes everything in the store that of others."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: Known | None = None

    @property
    def known(self) -> Known:
        if self._known is None:
            self._known = self._read()
        return self._known

    def note_root(self, root: Path) -> None:
        self._note(Known(str(root), self.known.containers))

    def note_containers(self, ids: Iterable[str]) -> None:
        self._note(Known(self.known.root, tuple(sorted(ids))))

    def _note(self, known: Known) -> None:
        if known != self.known:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self._path, json.dumps(asdict(known)).encode(), 0o600)
            self._known = known

    def _read(self) -> Known:
        try:
            found = json.loads(self._path.read_bytes())
            return Known(str(found["root"]), tuple(map(str, found["containers"])))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return Known()
