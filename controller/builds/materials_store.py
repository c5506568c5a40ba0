"""The bills of materials of builds: `BUILD/TARGET.cdx.json` below one folder."""

import re
import shutil
from pathlib import Path

from controller.files import write_durably

PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class MaterialsStore:
    """The folder. Blocks for no longer than a small file takes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, build_id: str, target: str, document: bytes) -> None:
        """Afterwards the document is kept, also after a power cut; again replaces it. An empty one is not kept."""
        if document:
            write_durably(self._path(build_id, target), document)

    def read(self, build_id: str, target: str) -> bytes | None:
        """The document; None where there is none."""
        try:
            return self._path(build_id, target).read_bytes()
        except FileNotFoundError:
            return None

    def builds(self) -> set[str]:
        """Ids of builds of which something is kept."""
        return {each.name for each in self._folder.iterdir()} if self._folder.exists() else set()

    def remove(self, build_id: str) -> None:
        """Afterwards nothing of the build is kept. Harmless where there is nothing."""
        shutil.rmtree(self._folder / _part(build_id), ignore_errors=True)

    def _path(self, build_id: str, target: str) -> Path:
        return self._folder / _part(build_id) / f"{_part(target)}.cdx.json"


def _part(name: str) -> str:
    if not PART.fullmatch(name):
        raise ValueError(f"{name!r} names no build or target")
    return name
