"""The folder that a project has in TANGO's shared storage."""

import os
from dataclasses import dataclass
from pathlib import Path

from controller.bridge.model import Key
from controller.errors import InvalidSpec
from controller.spec.loader import read_spec
from controller.spec.writing import written

# The one that people write wins over the one that TANGO generates, as for the `longshore` command.
_NAMES = ("deployment.yml", "deployment.yaml")
_LIMIT = 2**20
# Bytes of a name that file systems of Linux take.
_LONGEST_NAME = 255


class NotUsable(Exception):
    """The project cannot be started; the text says why."""


@dataclass(frozen=True)
class Work:
    """What a project's folder asks for. `spec`: its file in version 1, whatever form it has there."""

    file: Path
    name: str
    spec: bytes
    files: tuple[str, ...]
    warnings: tuple[str, ...]


class Folders:
    """`<shared>/common/<user_id>/<project_id>/`, and nothing beside it."""

    def __init__(self, shared: Path) -> None:
        self._common = shared / "common"

    def known(self, key: Key) -> bool:
        """OSError where the folder cannot be looked at."""
        return _plain(key) and (self._common / key.user_id / key.project_id).is_dir()

    def work(self, key: Key) -> Work:
        """Raises NotUsable."""
        try:
            return _work(self._file(key), key)
        except OSError as error:
            raise NotUsable(f"cannot read the project's folder: {error.strerror}") from error

    def _file(self, key: Key) -> Path:
        if not self.known(key):
            raise NotUsable("no folder of this user and project")
        folder = self._common / key.user_id / key.project_id
        path = next((folder / name for name in _NAMES if (folder / name).is_file()), None)
        if path is None:
            raise NotUsable(f"neither of {', '.join(_NAMES)} is in the project's folder")
        return path


def _work(path: Path, key: Key) -> Work:
    with path.open("rb") as file:
        data = file.read(_LIMIT + 1)
    try:
        reading = read_spec(data, default_name=key.project_id)
    except InvalidSpec as refusal:
        problems = "; ".join(f"line {one.line}: {one.path}: {one.message}" for one in refusal.problems)
        raise NotUsable(f"{path.name}: {problems}") from refusal
    warnings = tuple(f"{warning.path}: {warning.message}" for warning in reading.warnings)
    return Work(path, reading.spec.name, written(reading).encode(), tuple(reading.spec.build.all_files), warnings)


def _plain(key: Key) -> bool:
    """Whether both ids are names of folders, and no ways out of one."""
    return all(
        name not in ("", ".", "..") and not {"/", "\0"} & set(name) and len(os.fsencode(name)) <= _LONGEST_NAME
        for name in (key.user_id, key.project_id)
    )
