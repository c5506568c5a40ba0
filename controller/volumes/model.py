"""Project volumes as the controller keeps them. Plain data; times in seconds since the epoch."""

from dataclasses import dataclass

from controller.events.model import Project

LATEST = "latest"


@dataclass(frozen=True)
class VolumeVersion:
    """What lies in the registry as `repository@digest`. `size_bytes`: of all files together; `pushed`: last."""

    id: str
    project: Project
    name: str
    digest: str
    repository: str
    size_bytes: int
    files: int
    pushed: float
    latest: bool = True

    @property
    def place(self) -> tuple[str, str]:
        return self.repository, self.digest


@dataclass(frozen=True)
class PinnedVolume:
    """The version of a project volume that a revision mounts under `name`, one of its `deploy.volumes`."""

    name: str
    volume: str
    repository: str
    digest: str
    size_bytes: int
