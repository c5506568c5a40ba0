"""Which versions of project volumes a revision has: chosen when it is accepted, and kept with it."""

from controller.events.model import Project
from controller.spec.model import Spec
from controller.store import Transaction
from controller.volumes.model import PinnedVolume
from controller.volumes.service import find_version


def pinned_volumes(tx: Transaction, project: Project, spec: Spec) -> tuple[PinnedVolume, ...]:
    """The versions that the spec names, as they are now: "latest" becomes a digest. Raises NotFound."""
    found = []
    for volume in spec.deploy.volumes:
        if volume.project_volume is not None:
            version = find_version(tx, project, volume.project_volume, volume.version)
            found.append(
                PinnedVolume(volume.name, version.name, version.repository, version.digest, version.size_bytes)
            )
    return tuple(found)


def lost_volume(tx: Transaction, project: Project, volumes: tuple[PinnedVolume, ...]) -> str:
    """The first of these versions that is not kept any more, as NAME@DIGEST; "" where all are."""
    lost = (each for each in volumes if tx.volumes.find(project, each.volume, each.digest) is None)
    return next((f"{each.volume}@{each.digest}" for each in lost), "")
