"""The packages of a bundle: resolved, and pinned by the hash of one wheel each. Pure.

uv writes the resolution as the standard lock file: https://packaging.python.org/en/latest/specifications/pylock-toml/
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, order=True)
class LockedWheel:
    """One package and the wheel that is installed of it. `size_bytes` is 0 where the index does not tell."""

    name: str
    version: str
    file: str
    sha256: str
    url: str = ""
    size_bytes: int = 0


class NoWheel(Exception):
    """A package of the lock has no wheel that fits."""

    def __init__(self, name: str, version: str) -> None:
        super().__init__(f"{name} {version} has no wheel that fits")
        self.name = name
        self.version = version


def read_lock(text: str, ranks: Mapping[Tag, int]) -> tuple[LockedWheel, ...]:
    """The best wheel of each package, sorted by name. Raises NoWheel, and ValueError for what is no such file."""
    packages = tomllib.loads(text).get("packages", [])
    return tuple(sorted(_best(package, ranks) for package in packages))


def lock_text(wheels: Iterable[LockedWheel]) -> str:
    """As `pip install --require-hashes -r` and `uv pip install --require-hashes -r` take it."""
    return "".join(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in sorted(wheels))


def _best(package: Mapping[str, Any], ranks: Mapping[Tag, int]) -> LockedWheel:
    name, version = str(package["name"]), str(package.get("version", ""))
    fitting = []
    for wheel in package.get("wheels", ()):
        file = str(wheel.get("name") or unquote(urlsplit(str(wheel["url"])).path.rpartition("/")[2]))
        sha256 = str(wheel.get("hashes", {}).get("sha256", ""))
        rank = _rank(file, ranks)
        if rank is not None and SHA256.fullmatch(sha256):
            fitting.append((rank, LockedWheel(name, version, file, sha256, str(wheel["url"]), _size(wheel))))
    if not fitting:
        raise NoWheel(name, version)
    return min(fitting)[1]


def _size(wheel: Mapping[str, Any]) -> int:
    return int(wheel.get("size", 0))


def _rank(file: str, ranks: Mapping[Tag, int]) -> int | None:
    try:
        tags: Iterable[Tag] = parse_wheel_filename(file)[3]
    except InvalidWheelFilename:
        return None
    found: Sequence[int] = [ranks[tag] for tag in tags if tag in ranks]
    return min(found, default=None)
