"""How large the layers of an image are, asked from its registry before it is fetched.

For progress only: whatever goes wrong here makes the size unknown, and the pull itself tells what is wrong.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import structlog

from edge_agent.runtime.backend import BackendError
from edge_agent.runtime.model import Artifact

TIMEOUT = 5.0

log = structlog.get_logger()


def layer_sizes(artifact: Artifact, credentials: tuple[str, str], authority: Path | None) -> Mapping[str, int]:
    """Bytes of each of the artifact's layers in the registry, by digest; none where that cannot be learned. Blocks."""
    from edge_agent.runtime.registry import Registry

    registry = Registry(artifact.repository, credentials, authority, TIMEOUT)
    try:
        layers = json.loads(registry.manifest(artifact.digest)).get("layers", ())
        return {str(layer["digest"]): int(layer["size"]) for layer in layers}
    except (BackendError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.debug("image_size_unknown", image=artifact.reference, error=str(error))
        return {}
    finally:
        registry.close()
