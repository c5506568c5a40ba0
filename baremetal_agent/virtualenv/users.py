"""A user for each deployment, who owns nothing but what the deployment writes, and whom no account knows.

The same over restarts and revisions, so that it finds its own files again.
"""

import itertools
import json
import os
import threading
from collections.abc import Collection
from pathlib import Path

from edge_agent.runtime.backend import BackendUnavailable
from edge_agent.runtime.files import write_durably

# https://systemd.io/UIDS-GIDS: nobody uses these. Where a user namespace has no such numbers, some below 65536.
FIRST, FIRST_OF_FEW = 1_900_000_000, 60_600
MANY, FEW = 1_000_000, 500


class Users:
    """Kept in a file; losing it gives deployments other users, and their volumes to these. Raises OSError, and
    BackendError for a file that was damaged."""

    def __init__(self, path: Path, uid_map: Path = Path("/proc/self/uid_map")) -> None:
        self._path = path
        self._unsaved: dict[str, int] = {}
        # Held by whoever writes the file.
        self._writing = threading.Lock()
        self._first, self._count = _range(uid_map.read_text())

    def of(self, deployment_id: str, used: Collection[tuple[str, int]] = ()) -> int | None:
        """Numbers of user and group of a deployment; None without root, who alone can become another. Known for good
        after `settle`. `used`: deployments and numbers of the instances that there are, whose agent may have been
        killed before that."""
        if os.geteuid() != 0:
            return None
        known = self._known()
        if deployment_id not in known:
            taken = {*known.values(), *(number for name, number in used if name != deployment_id)}
            before = [number for name, number in used if name == deployment_id]
            numbers = itertools.chain(before, range(self._first, self._first + self._count))
            known[deployment_id] = next((number for number in numbers if number not in taken), self._first)
            self._unsaved[deployment_id] = known[deployment_id]
        return known[deployment_id]

    def settle(self) -> None:
        """Afterwards the disk has all that was told. Blocks, also in a thread beside the others."""
        with self._writing:
            if fresh := dict(self._unsaved):
                self._write(self._known())
                for name in fresh:
                    self._unsaved.pop(name, None)

    def keep_only(self, deployments: Collection[str]) -> None:
        """Nothing is left of all others that could belong to a user."""
        with self._writing:
            known = self._known()
            kept = {name: number for name, number in known.items() if name in deployments}
            if kept != known:
                self._unsaved = {name: number for name, number in self._unsaved.items() if name in kept}
                self._write(kept)

    def _known(self) -> dict[str, int]:
        # In this order: what is saved meanwhile is in the file.
        unsaved = dict(self._unsaved)
        return {**unsaved, **self._saved()}

    def _saved(self) -> dict[str, int]:
        try:
            return {str(name): int(number) for name, number in json.loads(self._path.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError, TypeError) as error:
            # Whoever got numbers anew now would find the files of others.
            message = f"{self._path} says no users ({error}); bring it back, or remove it while no bundle runs"
            raise BackendUnavailable("StorageUnavailable", message) from error

    def _write(self, known: dict[str, int]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(self._path, json.dumps(known, indent=1).encode(), 0o600)


def _range(uid_map: str) -> tuple[int, int]:
    """First number and how many, of those that this user namespace has."""
    for line in uid_map.splitlines():
        inside, _, count = map(int, line.split())
        if inside <= FIRST and inside + count >= FIRST + MANY:
            return FIRST, MANY
    return FIRST_OF_FEW, FEW
