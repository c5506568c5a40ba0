"""Bases that were pulled: which image a name means for a platform, for when its registry is away."""

import asyncio
import base64
import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from controller.builds.base_platforms import Platform
from controller.builds.cancelling import in_thread
from controller.builds.model import BuildFailed
from controller.builds.podman import Podman
from controller.files import write_durably


@dataclass(frozen=True)
class ImageFacts:
    """`digest`: that of its manifest; "" where the storage knows none."""

    platform: Platform
    digest: str


def tag_of(image_id: str) -> str:
    """The name that a pulled base has besides its own: made of its id, so that it never comes to mean another image.

    It keeps the base in the storage when its own name does, as that of an image of several platforms does with each
    pull. And Podman, asked to build on an id, writes a name that contains it into the history of what it builds: so the
    same base gives the same image, whatever else it is called at the moment.
    """
    return f"localhost/longshore/pulled:{image_id}"


class PulledBases:
    """Of one builder's storage; beside it there is a small file for each name and platform."""

    def __init__(self, podman: Podman) -> None:
        self._podman = podman
        self._folder = podman.folder / "pulled"
        # Each question to Podman takes a twentieth of a second: what cannot change is asked once. By id, with the
        # storage's record of it: an image may be removed, and pulled again.
        self._facts: dict[str, tuple[int, ImageFacts]] = {}
        self._tagged: dict[str, int] = {}

    async def facts(self, image_id: str) -> ImageFacts:
        """Raises BuildFailed where it is not in the storage."""
        recorded = self._podman.recorded(image_id)
        known = self._facts.get(image_id)
        if known is None or known[0] != recorded:
            known = self._facts[image_id] = recorded, await self._ask(image_id)
        return known[1]

    async def keep(self, name: str, platform: str, image_id: str) -> None:
        """From now on this name means this image for this platform, until the next time. Raises BuildFailed."""
        recorded = self._podman.recorded(image_id)
        if not recorded or self._tagged.get(image_id) != recorded:
            done = await self._podman.run("tag", image_id, tag_of(image_id))
            if done.returncode != 0:
                raise BuildFailed("BaseUnusable", f"cannot keep {name}: {done.stderr.strip()}", retryable=True)
            self._tagged[image_id] = recorded
        await in_thread(self._note, name, platform, image_id)

    async def find(self, name: str, platform: str) -> str | None:
        """The id of the image, where it is in the storage."""
        return await asyncio.to_thread(self._read, self._file(name, platform))

    def forget_removed(self) -> None:
        """Afterwards there are no files of images that are not in the storage any more."""
        # Those that begin with a dot are being written.
        for file in self._folder.glob("[!.]*"):
            if self._read(file) is None:
                file.unlink(missing_ok=True)

    async def _ask(self, image_id: str) -> ImageFacts:
        form = "[{{json .Os}}, {{json .Architecture}}, {{json .Digest}}]"
        done = await self._podman.run("image", "inspect", "--format", form, image_id)
        if done.returncode != 0:
            raise BuildFailed("BaseUnusable", f"cannot look at the base: {done.stderr.strip()}", retryable=True)
        os, architecture, digest = json.loads(done.stdout)
        variant = await asyncio.to_thread(self._variant, image_id)
        return ImageFacts(Platform(os, architecture, variant), digest if digest.startswith("sha256:") else "")

    def _variant(self, image_id: str) -> str:
        """Podman 4 and 5 do not tell it; the image's configuration does, as containers/storage keeps it."""
        key = base64.b64encode(f"sha256:{image_id}".encode()).decode()
        with contextlib.suppress(FileNotFoundError):
            return str(json.loads((self._podman.record(image_id) / f"={key}").read_bytes()).get("variant", ""))
        return ""

    def _file(self, name: str, platform: str) -> Path:
        return self._folder / hashlib.sha256(f"{name} {platform}".encode()).hexdigest()

    def _note(self, name: str, platform: str, image_id: str) -> None:
        file = self._file(name, platform)
        if self._read(file) != image_id:
            write_durably(file, image_id.encode())

    def _read(self, file: Path) -> str | None:
        try:
            image_id = file.read_text()
        except FileNotFoundError:
            return None
        return image_id if image_id and self._podman.holds(image_id) else None
