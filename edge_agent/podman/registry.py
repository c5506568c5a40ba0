"""How large an image is, asked from its registry before it is fetched.

For progress only: whatever goes wrong here makes the size unknown, and the pull itself tells what is wrong.
"""

import json
from pathlib import Path

import structlog

from edge_agent.runtime.backend import BackendError
from edge_agent.runtime.model import Artifact

TIMEOUT = 5.0

log = structlog.get_logger()


def total_size(artifact: Artifact, credentials: tuple[str, str], authority: Path | None) -> int:
    """Bytes of the artifact's layers as they lie in the registry; 0 where that cannot be learned. Blocks."""
    from edge_agent.runtime.registry import Registry

    registry = Registry(artifact.repository, credentials, authority, TIMEOUT)
    try:
        layers = json.loads(registry.manifest(artifact.digest)).get("layers", ())
        return sum(int(layer["size"]) for layer in layers)
    except (BackendError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.debug("image_size_unknown", image=artifact.reference, error=str(error))
        return 0
    finally:
        registry.close()
