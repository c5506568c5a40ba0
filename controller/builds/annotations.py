"""What the manifest of an image says of it, for those who read no configuration. Pure."""

from controller.builds.bases import Base
from controller.builds.image_labels import OCI, OWN, image_labels
from controller.builds.model import TargetJob

# Of our own labels those that say whose the image is; the others matter to a device only, which reads labels.
OWNERSHIP = frozenset(f"{OWN}.{name}" for name in ("name", "project", "user"))


def annotation_options(job: TargetJob, base: Base) -> list[str]:
    """Options of `podman build`. Only what is a label too: an image that comes out of Podman's cache of layers has the
    annotations that it was made with, and the same labels."""
    labels = image_labels(job, base.name, base.digest)
    said = {key: value for key, value in sorted(labels.items()) if key.startswith(f"{OCI}.") or key in OWNERSHIP}
    return [part for key, value in said.items() for part in ("--annotation", f"{key}={value}")]
