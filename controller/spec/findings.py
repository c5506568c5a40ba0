"""A problem of a `deployment.yml`, before it has a place."""

from dataclasses import dataclass

from controller.spec.tree import Path


@dataclass(frozen=True)
class Finding:
    """A problem at a path that may not be in the file."""

    path: Path
    message: str
