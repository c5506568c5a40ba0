"""Small files of the kernel and of the system, read so that nothing in them can do harm: whatever bytes they hold, and
whether they are there or not."""

import re
from pathlib import Path

# More than any of them has; what is behind it is not looked at.
LARGEST = 1024 * 1024
# Fits in the 64 bits with a sign that the contract has for numbers.
NUMBER = re.compile(r"\s*(\d{1,18})\s*")


def text(path: Path, largest: int = LARGEST) -> str:
    """What the file says; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(largest).decode(errors="replace")
    except (OSError, ValueError):
        # ValueError: a path that was made of what another file says.
        return ""


def lines(path: Path) -> list[str]:
    return text(path).splitlines()


def word(path: Path) -> str:
    """What the file says in one line, without the zero bytes that end texts of the device tree."""
    return clean(text(path, 4096))


def number(path: Path) -> int | None:
    """None where the file does not hold one number and nothing else."""
    found = NUMBER.fullmatch(text(path, 64))
    return int(found[1]) if found else None


def names(folder: Path) -> list[str]:
    """What is in the folder, sorted; nothing where it cannot be listed."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except (OSError, ValueError):
        return []


def exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def clean(said: str) -> str:
    """In one line, without what no terminal should get."""
    return " ".join(re.sub(r"[\0-\x1f\x7f-\x9f\ufffd]", " ", said).split())
