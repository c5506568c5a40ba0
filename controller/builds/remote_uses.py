"""What this controller keeps on a builder host, as notes here: whose time is when a build used it last."""

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from controller.files import write_durably

# As `controller.rendering.containerfile` names the caches of package managers.
CACHE_ID = re.compile(r"--mount=type=cache,id=(longshore-[a-z0-9-]+),")


class Kind(StrEnum):
    """The folder that has the notes."""

    # What builds made, by its name.
    IMAGE = "images"
    # What this machine sent, by its id.
    BASE = "bases"
    # A cache of a package manager, by its id.
    CACHE = "caches"


@dataclass(frozen=True)
class Use:
    kind: Kind
    name: str
    last_used: float


class HostUses:
    """The notes of one host. Blocks for no longer than a small file takes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, kind: Kind, name: str) -> None:
        """It is there, and used now."""
        write_durably(self._path(kind, name), name.encode())

    def used(self, kind: Kind, name: str) -> None:
        """It is used now, if it is noted: what is there by itself is not ours to remove."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path(kind, name))

    def put_off(self, use: Use, until: float) -> None:
        """It counts as used then."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path(use.kind, use.name), (until, until))

    def forget(self, use: Use) -> None:
        self._path(use.kind, use.name).unlink(missing_ok=True)

    def all(self) -> list[Use]:
        """Oldest use first."""
        found = []
        for kind in Kind:
            for note in self._folder.glob(f"{kind}/[!.]*"):
                with contextlib.suppress(FileNotFoundError):
                    found.append(Use(kind, note.read_text(errors="replace"), note.stat().st_mtime))
        return sorted(found, key=lambda use: (use.last_used, use.name))

    def _path(self, kind: Kind, name: str) -> Path:
        return self._folder / kind / hashlib.sha256(name.encode()).hexdigest()[:32]


def cache_ids(containerfile: Path) -> list[str]:
    """Of the package caches that its steps use."""
    return sorted(set(CACHE_ID.findall(containerfile.read_text())))
