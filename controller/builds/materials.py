"""What is inside an image: a CycloneDX bill of materials, read from its files, and attached to the artifact."""

from controller.builds.log import BuildLog
from controller.builds.model import BuiltArtifact, RegistryAccess, TargetJob
from controller.builds.podman import Podman


async def image_materials(podman: Podman, image_id: str, job: TargetJob, log: BuildLog) -> bytes:
    """The document of an image in the builder's storage, in JSON. Raises BuildFailed."""
    return b""


async def attach(artifact: BuiltArtifact, materials: bytes, access: RegistryAccess) -> None:
    """Afterwards the document lies in the registry as a referrer of the artifact. Raises RegistryUnreachable."""
