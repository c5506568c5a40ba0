"""What a workload is given of the device besides its bundle: volumes, mounts, secrets, devices, a name for its user."""

import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from baremetal_agent.virtualenv.confinement import ROOT
from baremetal_agent.virtualenv.devices import Granted, grant
from baremetal_agent.virtualenv.layout import Bind
from baremetal_agent.virtualenv.users import Users
from edge_agent.runtime.backend import BackendError
from edge_agent.runtime.model import Workload
from edge_agent.runtime.secret_files import SecretFolders, place

USER_NAME = "longshore"


@dataclass(frozen=True)
class Belongings:
    """`secrets` names the folder of its secrets, which is to be removed with it."""

    uid: int | None
    binds: tuple[Bind, ...]
    granted: Granted
    secrets: str


class Store:
    """Of one agent, below `folder`."""

    def __init__(self, folder: Path, owner: str) -> None:
        self._volumes = folder / "volumes"
        self._users = Users(folder / "users.json")
        self._secrets = SecretFolders(place(owner))

    def gather(self, workload: Workload, used: Collection[tuple[str, int]], *, apart: bool) -> Belongings:
        """All of it is there, and its user is for good after `settle`. `used`: see `Users.of`. `apart`: it runs in a
        sandbox, as nobody else. Raises BackendError, OSError."""
        granted = grant(workload.name, workload.devices, apart=apart)
        mounts = list(_mounts(workload))
        uid = self._users.of(workload.deployment_id, used) if apart and ROOT not in workload.allow else None
        volumes = [self._volume(workload.deployment_id, volume.name, uid) for volume in workload.volumes]
        folder, files = self._secrets.write(workload, uid)
        binds = [
            *mounts,
            *(
                Bind(str(path), volume.target, volume.read_only)
                for path, volume in zip(volumes, workload.volumes, strict=True)
            ),
            *(Bind(str(path), target) for target, path in files.items()),
            *granted.binds,
        ]
        return Belongings(uid, tuple(binds), granted, folder)

    def settle(self) -> None:
        """Afterwards what was gathered outlives a power cut. Blocks for as long as the disk does."""
        self._users.settle()

    def _volume(self, deployment_id: str, name: str, uid: int | None) -> Path:
        path = self._volumes / deployment_id / name
        path.mkdir(parents=True, exist_ok=True)
        if uid is not None and path.stat().st_uid != uid:
            # New, or of a user whose number was lost. The folder itself comes last: until then this begins anew.
            for each in (*path.rglob("*"), path):
                os.chown(each, uid, uid, follow_symlinks=False)
        return path

    def drop_secrets(self, folder: str) -> None:
        self._secrets.remove(folder)

    def forget(self, deployment_id: str | None) -> None:
        """Its volumes are gone; those of all deployments for None."""
        gone = self._volumes if deployment_id is None else self._volumes / deployment_id
        if gone.exists():
            shutil.rmtree(gone)

    def tidy(self, deployments: set[str], secrets: set[str]) -> None:
        """What a killed agent has left of others is gone: secrets, and users who own nothing any more."""
        self._secrets.keep_only(secrets)
        kept = {path.name for path in self._volumes.iterdir()} if self._volumes.is_dir() else set()
        self._users.keep_only(deployments | kept)


def account(folder: Path, uid: int | None) -> Iterator[Bind]:
    """Files that tell programs who they are, since some ask: those of the device with one name more."""
    if uid is None:
        return
    lines = {"passwd": f"{USER_NAME}:x:{uid}:{uid}::/tmp:/usr/sbin/nologin\n", "group": f"{USER_NAME}:x:{uid}:\n"}
    for name, line in lines.items():
        known = Path("/etc", name)
        (folder / name).write_text((known.read_text() if known.exists() else "") + line)
        (folder / name).chmod(0o644)
        yield Bind(str(folder / name), str(known))


def _mounts(workload: Workload) -> Iterator[Bind]:
    for mount in workload.mounts:
        if not Path(mount.source).exists():
            message = f"cannot start {workload.name}: {mount.source} does not exist on this device"
            raise BackendError("MountSourceMissing", message, retryable=False)
        yield Bind(mount.source, mount.target, mount.read_only)
