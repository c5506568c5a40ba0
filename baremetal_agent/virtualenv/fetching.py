"""Bundles on their way from the registry to this device: only the parts that are lacking, and those from where a break
left them."""

from collections.abc import Iterable
from pathlib import Path

from baremetal_agent.virtualenv.bundle import Description, Manifest, parse_description, parse_manifest
from edge_agent.runtime.blobs import Part
from edge_agent.runtime.disk import require_room
from edge_agent.runtime.fetching import PartFetcher, Source
from edge_agent.runtime.model import Artifact

# Installed, packages take about so many times the size of their wheels; with the wheels themselves one more.
GROWTH = 3


class Fetcher(PartFetcher):
    """Fetches bundles into `blobs`."""

    async def read(self, source: Source, artifact: Artifact) -> tuple[Manifest, Description]:
        """What the bundle is. From the device where that is known here, so that it works without a network."""
        reference = artifact.reference
        manifest = parse_manifest(reference, await self.manifest(source, artifact.digest))
        return manifest, parse_description(reference, await self.content(source, manifest.config))

    def require_room(self, artifact: Artifact, folder: Path, parts: Iterable[Part]) -> None:
        """Raises "DiskFull" where what is lacking of these parts, and what will be made of it, cannot fit."""
        lacking = sum(part.size - self._blobs.begun(part) for part in parts)
        if lacking:
            require_room(artifact.reference, folder, lacking * (1 + GROWTH))
