"""Base images from a distribution's own packages, for machines that reach no registry.

A recipe in `templates/bases/` says for which images it stands in. Its image is made once, without running anything of
it, so that every architecture's takes as long; it is kept in a folder that all builders of a machine may share, and
loaded into a builder's storage when first needed. The same packages give the same image on every machine.
"""

import asyncio
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field

from controller.builds import host
from controller.builds.bootstrap_archive import write_archive
from controller.builds.cancelling import despite_cancel, in_thread
from controller.builds.debian.apt import AptFailed, PrivateApt
from controller.builds.debian.system import KeysMissing, make_system, sources_list
from controller.builds.model import BuildFailed, OnLine
from controller.builds.outcome import MAX_LAST_LINES, NO_SPACE
from controller.builds.podman import Podman
from controller.builds.settings import BuilderSettings
from controller.files import sync_folder
from controller.spec.fields import NAME
from controller.spec.image_names import ImageName

# Raised when the way to make the tree changes, so that kept images of before are not used.
REVISION = 3
PART = ".part"
LOCK_POLL = 0.2


class Recipe(BaseModel):
    """What is bootstrapped in place of the images named in `stands_for`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=NAME)]
    stands_for: tuple[ImageName, ...]
    suite: Annotated[str, Field(pattern=NAME)]
    include: tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]+$")], ...]

    def key(self, architecture: str) -> str:
        """The same for the same content."""
        text = json.dumps([REVISION, self.suite, sorted(self.include)])
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}-{architecture}"

    def image(self, architecture: str) -> str:
        return f"localhost/longshore/base/{self.name}:{self.key(architecture).removeprefix(f'{self.name}-')}"


@functools.cache
def load_recipes() -> tuple[Recipe, ...]:
    folder = files("templates") / "bases"
    entries = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".yaml")), key=lambda one: one.name)
    return tuple(Recipe.model_validate(yaml.safe_load(entry.read_text(encoding="utf-8"))) for entry in entries)


def recipe_for(image: str) -> Recipe | None:
    """The recipe that stands for the image of this full name."""
    return next((recipe for recipe in load_recipes() if image in recipe.stands_for), None)


class Bootstrapper:
    """Makes bases from recipes; `cache` keeps their images."""

    def __init__(self, podman: Podman, cache: Path, settings: BuilderSettings | None = None) -> None:
        self._podman = podman
        self._cache = cache
        self._settings = settings or BuilderSettings()
        # Ids by name, as they were found last.
        self._ids: dict[str, str] = {}

    async def image_id(self, recipe: Recipe, architecture: str, on_line: OnLine) -> str:
        """The recipe's image in the builder's storage, made where it is not there. Raises BuildFailed."""
        image = recipe.image(architecture)
        if found := await self._find(image):
            return found
        await asyncio.to_thread(self._cache.mkdir, parents=True, exist_ok=True)
        archive = self._cache / f"{recipe.key(architecture)}.tar"
        async with _locked(archive.with_suffix(".lock")):
            if not archive.exists():
                for stale in self._cache.glob(f"{archive.stem}.*{PART}"):
                    await in_thread(shutil.rmtree, stale, True)
                on_line("system", f"making {recipe.name} for {architecture} from packages of {recipe.suite}, once")
                await self._make(recipe, architecture, archive, on_line)
            # Another build of this builder may have been first.
            return await self._find(image) or await self._load(archive, image)

    async def _find(self, image: str) -> str | None:
        if (known := self._ids.get(image)) and self._podman.holds(known):
            return known
        found = await self._podman.run("image", "inspect", "--format", "{{.Id}}", image)
        if found.returncode != 0:
            return None
        self._ids[image] = found.stdout.strip()
        return self._ids[image]

    async def _load(self, archive: Path, image: str) -> str:
        done = await self._podman.run("load", "-q", "-i", str(archive))
        if done.returncode != 0:
            if NO_SPACE.search(done.stderr):
                raise BuildFailed("DiskFull", f"cannot load {archive.name}: {done.stderr}; free space", retryable=True)
            # Damaged on disk: the next try makes it anew.
            archive.unlink(missing_ok=True)
            raise BuildFailed("BaseUnusable", f"cannot load {archive.name}: {done.stderr}", retryable=True)
        loaded = done.stdout.strip().rpartition(" ")[2]
        named = await self._podman.run("tag", loaded, image)
        found = await self._find(image)
        if found is None:
            raise BuildFailed("BaseUnusable", f"{archive.name} is not there: {named.stderr}", retryable=True)
        return found

    async def _make(self, recipe: Recipe, architecture: str, archive: Path, on_line: OnLine) -> None:
        folder = Path(tempfile.mkdtemp(prefix=f"{archive.stem}.", suffix=PART, dir=self._cache))
        try:
            settings = await host.read(self._settings)
            tree, unfinished = folder / "tree.tar", folder / archive.name
            apt = PrivateApt(folder / "apt", architecture, settings, self._podman.environment())
            sources = sources_list(recipe.suite, self._settings.bootstrap_mirror)
            await make_system(apt, sources, recipe.include, tree, on_line)
            comment = f"packages of {recipe.suite}: {' '.join(recipe.include)}"
            await in_thread(write_archive, tree, unfinished, architecture, comment)
            await in_thread(_keep, unfinished, archive)
        except (AptFailed, KeysMissing, FileNotFoundError) as error:
            raise _bootstrap_failure(recipe, error) from error
        finally:
            await despite_cancel(asyncio.to_thread(shutil.rmtree, folder, True))


def _bootstrap_failure(recipe: Recipe, error: Exception) -> BuildFailed:
    last = error.lines[-MAX_LAST_LINES:] if isinstance(error, AptFailed) else (str(error),)
    beginning = f"no registry has {recipe.stands_for[0]} in reach" if recipe.stands_for else "there is no such image"
    if any(NO_SPACE.search(line) for line in last):
        return BuildFailed("DiskFull", f"cannot make {recipe.name}: the disk is full", last_lines=last, retryable=True)
    if isinstance(error, FileNotFoundError):
        cause = f"{error.filename} is not there; making it needs Debian's or Ubuntu's apt and dpkg on this machine"
    else:
        cause = f"it cannot be made from packages of {recipe.suite}; see the last lines"
    return BuildFailed("BaseUnreachable", f"{beginning}, and {cause}", last_lines=last, retryable=True)


def _keep(unfinished: Path, archive: Path) -> None:
    with unfinished.open("ab") as file:
        os.fsync(file.fileno())
    unfinished.replace(archive)
    sync_folder(archive.parent)


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Holds the lock across processes and across the tasks of this one; it ends with the process."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_POLL)
        yield
