"""Releases: the unpacked files of each bundle and its environment, side by side, each whole or not there.

releases/DIGEST/files, runtime   what the bundle brought
releases/DIGEST/environment      leads to environments/NAME
releases/DIGEST/bundle.json      the description
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from baremetal_agent.virtualenv.bundle import ENVIRONMENT, Description, Manifest, parse_description
from baremetal_agent.virtualenv.environments import Environments, compile_sources
from baremetal_agent.virtualenv.folders import Folders
from edge_agent.runtime.backend import BackendError
from edge_agent.runtime.blobs import BlobStore
from edge_agent.runtime.model import Artifact
from edge_agent.runtime.threads import in_thread
from edge_agent.runtime.unpacking import DamagedLayer, UnsafeLayer, unpack

DESCRIPTION = "bundle.json"


@dataclass(frozen=True)
class Release:
    """A bundle that is ready to be run. `folder` has what its places name; a `writable` one is a copy."""

    folder: Path
    description: Description
    writable: bool = False

    @property
    def environment(self) -> Path:
        return (self.folder / ENVIRONMENT).resolve()


class Releases:
    """For one event loop."""

    def __init__(self, folder: Path, environments: Environments, blobs: BlobStore, boot: str) -> None:
        self._made = Folders(folder / "releases", boot)
        self._environments = environments
        self._blobs = blobs

    def find(self, artifact: Artifact) -> Release | None:
        """The release of this bundle, if it and its environment are whole."""
        name = _name(artifact.digest)
        folder = self._made.path(name)
        if not self._made.whole(name):
            return None
        try:
            description = parse_description(artifact.reference, (folder / DESCRIPTION).read_bytes())
            environment = (folder / ENVIRONMENT).readlink().name
        except (OSError, BackendError):
            return None
        return Release(folder, description) if self._environments.whole(environment) else None

    async def make(self, artifact: Artifact, manifest: Manifest, description: Description, environment: str) -> None:
        """Afterwards `find` has it. The layers are blobs. Raises BackendError."""
        content = self._blobs.read(manifest.config.digest)
        if content is None:
            raise BackendError("ImagePullFailed", f"the description of {artifact.reference} is gone", retryable=True)
        folders = frozenset(name for _, name in description.places) - {ENVIRONMENT}
        with self._made.making(_name(artifact.digest)) as fresh:
            (fresh / DESCRIPTION).write_bytes(content)
            (fresh / ENVIRONMENT).symlink_to(os.path.relpath(self._environments.path(environment), fresh))
            for name in folders:
                (fresh / name).mkdir()
                (fresh / name).chmod(0o755)
            for layer in manifest.files:
                await self._unpack(artifact, layer.digest, fresh, folders)

    async def settle(self, artifact: Artifact) -> None:
        """Afterwards it outlives a power cut, and starts without compiling first: nothing in it can be written to by
        what runs. Takes its time, and no more of the processor than others leave."""
        release = self.find(artifact)
        if release is not None and not self._made.settled(_name(artifact.digest)):
            await self._environments.settle(release.environment.name)
            sources = [str(release.folder / name) for _, name in release.description.places if name != ENVIRONMENT]
            await compile_sources(release.environment, sources)
            await self._made.settle(_name(artifact.digest))

    async def keep_only(self, digests: frozenset[str]) -> frozenset[str]:
        """All other releases are gone; names of the environments that are still needed."""
        names = {_name(digest) for digest in digests}
        for name in self._made.names():
            if name not in names:
                await asyncio.to_thread(self._made.remove, name)
        links = [self._made.path(name) / ENVIRONMENT for name in self._made.names()]
        return frozenset(link.readlink().name for link in links if link.is_symlink())

    def sweep(self) -> None:
        """What a break has left is gone. Not while one is made."""
        self._made.sweep()

    async def _unpack(self, artifact: Artifact, digest: str, target: Path, folders: frozenset[str]) -> None:
        path = self._blobs.path(digest)
        try:
            await in_thread(lambda: unpack(path, digest, target, folders))
        except UnsafeLayer as error:
            raise BackendError("InvalidBundle", f"cannot use {artifact.reference}: {error}", retryable=False) from error
        except DamagedLayer as error:
            path.unlink(missing_ok=True)
            message = f"{artifact.reference} is damaged on this device and is fetched anew: {error}"
            raise BackendError("ImagePullFailed", message, retryable=True) from error


def _name(digest: str) -> str:
    return digest.removeprefix("sha256:")
