"""When the bases in a builder's storage were used last: a file for each, whose time it is."""

import contextlib
import time
from collections.abc import Collection
from pathlib import Path


class BaseUses:
    """Of the builder's folder. Blocks for no longer than a small file takes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "used"

    def note(self, image_id: str) -> None:
        """It is used now."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / image_id).touch()

    def last(self, image_id: str) -> float:
        """In seconds since the epoch; now where it was never noted."""
        try:
            return (self._folder / image_id).stat().st_mtime
        except FileNotFoundError:
            return time.time()

    def keep(self, image_ids: Collection[str]) -> None:
        """Afterwards these are noted, those that were not as used now; and no others."""
        noted = {path.name for path in self._folder.iterdir()} if self._folder.exists() else set()
        for image_id in set(image_ids) - noted:
            self.note(image_id)
        for image_id in noted - set(image_ids):
            with contextlib.suppress(FileNotFoundError):
                (self._folder / image_id).unlink()
