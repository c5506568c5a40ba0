"""Environments that were laid out before, by what was asked for: two files each, of which the archive comes last."""

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Laid:
    """What is to be known of an environment that lies in an archive. `scripts`: name, version and build number of
    packages whose own script has to run in the image. `notes`: sentences for people."""

    scripts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def take(folder: Path, key: str, target: Path) -> Laid | None:
    """Afterwards the archive has the name `target` too. None where none was kept, and then nothing is there. Blocks."""
    try:
        os.link(folder / f"{key}.tar", target)
    except FileNotFoundError:
        return None
    known = json.loads((folder / f"{key}.json").read_bytes())
    # By the times of its files housekeeping sees that the folder is in use.
    os.utime(folder / f"{key}.json")
    return Laid(tuple(known["scripts"]), tuple(known["notes"]))


def keep(folder: Path, key: str, target: Path, laid: Laid) -> None:
    """Again is harmless, at the same time too. Blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as unfinished:
        written, linked = Path(unfinished, "json"), Path(unfinished, "tar")
        written.write_text(json.dumps(asdict(laid)), encoding="utf-8")
        written.replace(folder / f"{key}.json")
        os.link(target, linked)
        linked.replace(folder / f"{key}.tar")
