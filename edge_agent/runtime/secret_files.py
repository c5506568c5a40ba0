"""Secrets as files: in memory only, at a path that nobody can guess, for as long as their instance is there."""

import os
import secrets
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from edge_agent.runtime.model import Secret, Workload


class SecretFolders:
    """Folders below `place`, which is in memory and of the agent's own: whoever runs on the device may enter it and
    list nothing there."""

    def __init__(self, place: Path) -> None:
        self._place = place
        # Those of this life, which go by `remove` alone: what begins is told to nobody yet.
        self._own: set[str] = set()

    def write(self, workload: Workload, user: int | None = None) -> tuple[str, Mapping[str, Path]]:
        """The name of a new folder, empty where there is no secret, and the file of each secret's target.

        Only `user` may read them, where that is given; else whoever finds them, of whom there is nobody but the
        instance to which they are shown.
        """
        if not workload.secrets:
            return "", {}
        name = secrets.token_hex(16)
        self._place.mkdir(parents=True, exist_ok=True)
        self._place.chmod(0o711)
        self._own.add(name)
        try:
            return name, self._filled(self._place / name, workload.secrets, user)
        except BaseException:
            self.remove(name)
            raise

    def _filled(self, folder: Path, given: Sequence[Secret], user: int | None) -> Mapping[str, Path]:
        folder.mkdir(mode=0o711)
        files = {}
        for number, secret in enumerate(given):
            path = folder / str(number)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secret.content)
            if user is not None:
                os.chown(path, user, user)
            # The umask must not take reading away from a user inside whose number is not known here.
            path.chmod(0o444 if user is None else 0o400)
            files[secret.target] = path
        return files

    def remove(self, name: str) -> None:
        """Nothing of the folder is left. Idempotent."""
        if name:
            self._own.discard(name)
            shutil.rmtree(self._place / name, ignore_errors=True)

    def keep_only(self, names: Collection[str]) -> None:
        """What a killed agent has left is gone, but for these."""
        if self._place.is_dir():
            for folder in self._place.iterdir():
                if folder.name not in self._own and folder.name not in names:
                    self.remove(folder.name)


def place(owner: str) -> Path:
    """Where the secrets of this owner are: in memory, gone with the power."""
    runtime = Path("/run") if os.getuid() == 0 else Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}"))
    return runtime / "longshore" / f"secrets-{owner}"
