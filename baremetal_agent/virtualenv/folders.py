"""Folders that are whole or not there, also after a power cut, without waiting for the disk while they are made.

A folder is made under another name and renamed when all is in it, with a marker that says in which life of the machine
that was. Until `settle` has brought it to the disk, only that life may trust it.
"""

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from baremetal_agent.virtualenv.commands import run
from edge_agent.runtime.files import write_durably

MARKER = ".longshore.json"
UNFINISHED = ".new-"
DISCARDED = ".old-"


def boot_id(proc: Path = Path("/proc")) -> str:
    """Differs after each start of the machine."""
    return (proc / "sys/kernel/random/boot_id").read_text().strip()


class Folders:
    """Named folders below `parent`; `boot` is this life of the machine."""

    def __init__(self, parent: Path, boot: str) -> None:
        self._parent = parent
        self._boot = boot
        # How many change it in place just now.
        self._changing: Counter[str] = Counter()

    def path(self, name: str) -> Path:
        return self._parent / name

    def names(self) -> list[str]:
        """Of all that were finished, whole or not."""
        return [path.name for path in self._entries() if not path.name.startswith(".")]

    def whole(self, name: str) -> bool:
        """Whether it is there with all that was put into it."""
        marker = _read(self.path(name))
        return marker is not None and (marker.get("settled") is True or marker.get("boot") == self._boot)

    def settled(self, name: str) -> bool:
        """Whether it outlives a power cut."""
        return (_read(self.path(name)) or {}).get("settled") is True

    @contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """An empty folder to be filled; it is there under its name once the block has ended without an error."""
        self._parent.mkdir(parents=True, exist_ok=True)
        fresh = self._parent / f"{UNFINISHED}{name}-{uuid.uuid4().hex[:8]}"
        fresh.mkdir()
        # Whatever the umask: it is seen by other users.
        fresh.chmod(0o755)
        try:
            yield fresh
            self._mark(fresh)
            self.remove(name)
            fresh.rename(self.path(name))
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    @contextmanager
    def changing(self, name: str) -> Iterator[Path]:
        """It is there to be changed in place, with what it had, if that is whole; from now on unsettled. Several may
        change it at once."""
        if not self.whole(name):
            self.remove(name)
        self.path(name).mkdir(parents=True, exist_ok=True)
        self._mark(self.path(name))
        self._changing[name] += 1
        try:
            yield self.path(name)
        finally:
            self._changing[name] -= 1

    async def settle(self, name: str) -> None:
        """Afterwards it is on the disk, unless it was changed meanwhile: then whoever did so settles it. Takes as long
        as the disk does."""
        before = _read(self.path(name))
        if not self.whole(name) or self.settled(name) or self._changing[name]:
            return
        ended = await run("sync", "--file-system", str(self._parent))
        # It may also have been removed.
        with suppress(FileNotFoundError):
            if ended.code == 0 and _read(self.path(name)) == before:
                write_durably(self.path(name) / MARKER, json.dumps({"settled": True}).encode(), 0o644)

    def remove(self, name: str) -> None:
        """At no moment is a part of it there under its name."""
        if self.path(name).exists():
            discarded = self._parent / f"{DISCARDED}{name}-{uuid.uuid4().hex[:8]}"
            self.path(name).rename(discarded)
            shutil.rmtree(discarded, ignore_errors=True)

    def sweep(self) -> None:
        """What a break has left in the middle of making or removing is gone. Not while anything is made."""
        for path in self._entries():
            if path.name.startswith((UNFINISHED, DISCARDED)):
                shutil.rmtree(path, ignore_errors=True)

    def _mark(self, folder: Path) -> None:
        # With what tells this change from all others.
        (folder / MARKER).write_text(json.dumps({"boot": self._boot, "change": uuid.uuid4().hex}))

    def _entries(self) -> list[Path]:
        return list(self._parent.iterdir()) if self._parent.is_dir() else []


def _read(folder: Path) -> dict[str, object] | None:
    try:
        found = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
