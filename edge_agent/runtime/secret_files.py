"""Secrets as files: in memory only, at a path that nobody can guess, for as long as their instance is there."""

import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from edge_agent.runtime.model import Workload


class SecretFolders:
    """Folders below `place`, which is in memory and of the agent's own: whoever runs on the device may enter it and
    list nothing there."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def write(self, workload: Workload, user: int | None = None) -> tuple[str, Mapping[str, Path]]:
        """The name of a new folder, empty where there is no secret, and the file of each secret's target.

        Only `user` may read them, where that is given; else whoever finds them, of whom there is nobody but the
        instance to which they are shown.
        """
        if not workload.secrets:
            return "", {}
        name = secrets.token_hex(16)
        folder = self._place / name
        self._place.mkdir(parents=True, exist_ok=True)
        self._place.chmod(0o711)
        folder.mkdir(mode=0o711)
        files = {}
        for number, secret in enumerate(workload.secrets):
            path = folder / str(number)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secret.content)
            if user is not None:
                os.chown(path, user, user)
            # The umask must not take reading away from a user inside whose number is not known here.
            path.chmod(0o444 if user is None else 0o400)
            files[secret.target] = path
        return name, files

    def remove(self, name: str) -> None:
        """Nothing of the folder is left. Idempotent."""
        if name:
            shutil.rmtree(self._place / name, ignore_errors=True)

    def keep_only(self, names: Collection[str]) -> None:
        """What a killed agent has left is gone."""
        if self._place.is_dir():
            for folder in self._place.iterdir():
                if folder.name not in names:
                    self.remove(folder.name)


def place(owner: str) -> Path:
    """Where the secrets of this owner are: in memory, gone with the power."""
    runtime = Path("/run") if os.getuid() == 0 else Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}"))
    return runtime / "longshore" / f"secrets-{owner}"
