"""Environments that were laid out before, by what was asked for: two files each, of which the archive comes last."""

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from controller.files import sync_file, sync_folder, write_durably


@dataclass(frozen=True)
class Laid:
    """What is to be known of an environment that lies in an archive. `scripts`: name, version and build number of
    packages whose own script has to run in the image. `notes`: sentences for people."""

    scripts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def take(folder: Path, key: str, target: Path) -> Laid | None:
    """Afterwards the archive has the name `target` too. None where none was kept, or what was kept is damaged, and then
    nothing is there. Blocks."""
    try:
        known = json.loads((folder / f"{key}.json").read_bytes())
        laid = Laid(tuple(known["scripts"]), tuple(known["notes"]))
        os.link(folder / f"{key}.tar", target)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    # By the times of its files housekeeping sees that the folder is in use.
    os.utime(folder / f"{key}.json")
    return laid


def keep(folder: Path, key: str, target: Path, laid: Laid) -> None:
    """Afterwards it is kept, whole or not at all after a power cut. Again is harmless, at the same time too. Blocks."""
    write_durably(folder / f"{key}.json", json.dumps(asdict(laid)).encode())
    sync_file(target)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as unfinished:
        linked = Path(unfinished, "tar")
        os.link(target, linked)
        linked.replace(folder / f"{key}.tar")
    sync_folder(folder)
