"""Base images from a distribution's own packages, for machines that reach no registry.

A recipe in `templates/bases/` says for which images it stands in. Its file tree is made once by mmdebstrap, kept in a
folder that all builders of a machine may share, and imported into a builder's storage when first needed.
"""

import asyncio
import contextlib
import fcntl
import functools
import hashlib
import json
import os
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field

from controller.builds import processes
from controller.builds.cancelling import in_thread
from controller.builds.model import BuildFailed, OnLine
from controller.builds.podman import Podman
from controller.files import sync_folder
from controller.spec.model import IMAGE, NAME

# Raised when the way to make the tree below changes, so that kept trees of before are not used.
REVISION = 1
# Documentation and translations, which the slim images of registries lack too.
LEFT_OUT = ("doc", "man", "locale", "info", "lintian", "bash-completion", "doc-base", "linda", "groff")
MERGED_USR = Path("/usr/share/mmdebstrap/hooks/merged-usr")
LOCK_POLL = 0.2


class Recipe(BaseModel):
    """What is bootstrapped in place of the images named in `stands_for`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=NAME)]
    stands_for: tuple[Annotated[str, Field(pattern=IMAGE)], ...]
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
    """Makes bases from recipes; `cache` keeps their trees. `mirror` is empty for the distribution's own."""

    def __init__(self, podman: Podman, cache: Path, mirror: str = "") -> None:
        self._podman = podman
        self._cache = cache
        self._mirror = mirror

    async def image_id(self, recipe: Recipe, architecture: str, on_line: OnLine) -> str:
        """The recipe's image in the builder's storage, made where it is not there. Raises BuildFailed."""
        image = recipe.image(architecture)
        if found := await self._find(image):
            return found
        await asyncio.to_thread(self._cache.mkdir, parents=True, exist_ok=True)
        tree = self._cache / f"{recipe.key(architecture)}.tar"
        async with _locked(tree.with_suffix(".lock")):
            if not tree.exists():
                for stale in self._cache.glob(f"{tree.stem}.*.part"):
                    stale.unlink()
                on_line("system", f"making {recipe.name} for {architecture} from packages of {recipe.suite}, once")
                await self._make_tree(recipe, architecture, tree, on_line)
            # Another build of this builder may have been first.
            return await self._find(image) or await self._import(tree, image, architecture)

    async def _find(self, image: str) -> str | None:
        found = await self._podman.run("image", "inspect", "--format", "{{.Id}}", image)
        return found.stdout.strip() if found.returncode == 0 else None

    async def _import(self, tree: Path, image: str, architecture: str) -> str:
        done = await self._podman.run("import", "-q", "--os", "linux", "--arch", architecture, str(tree), image)
        if done.returncode != 0:
            raise BuildFailed("BaseUnusable", f"cannot import {tree.name}: {done.stderr}", retryable=True)
        return done.stdout.strip().removeprefix("sha256:")

    async def _make_tree(self, recipe: Recipe, architecture: str, tree: Path, on_line: OnLine) -> None:
        unfinished = tree.with_suffix(f".{os.getpid()}.part")
        lines: list[str] = []

        def keep(stream: str, text: str) -> None:
            lines.append(text)
            on_line(stream, text)

        argv = mmdebstrap(recipe, architecture, unfinished, self._mirror)
        if os.geteuid() != 0:
            # Its own way without root takes only ids other than ours, which may not enter our folders.
            argv = self._podman.argv(["unshare", argv[0], "--mode=root", *argv[1:]])
        # mmdebstrap takes the format from the name unless told.
        environment = self._podman.environment()
        try:
            code = await processes.stream(argv, environment, keep)
            if code != 0:
                raise _bootstrap_failure(recipe, architecture, lines)
            await in_thread(_keep, unfinished, tree)
        except FileNotFoundError as error:
            raise BuildFailed(
                "BaseUnreachable",
                f"no registry has {recipe.stands_for[0]} in reach, and mmdebstrap is not installed; install it",
                retryable=True,
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)


def mmdebstrap(recipe: Recipe, architecture: str, target: Path, mirror: str) -> list[str]:
    """The command line. The tree has apt, but neither perl nor traces of this machine."""
    no_usrmerge = r"printf 'Package: usrmerge\nPin: release *\nPin-Priority: -1\n'"
    traces = "preferences.d/usrmerge apt.conf.d/99mmdebstrap"
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
    options += [
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        # Whether the tree is whole is decided by the rename at the end, not by each file's fsync.
        "--dpkgopt=force-unsafe-io",
        # A host whose apt keeps no package cache would read all lists again for each call.
        '--aptopt=Dir::Cache::pkgcache "pkgcache.bin"',
        '--aptopt=Dir::Cache::srcpkgcache "srcpkgcache.bin"',
        f'--setup-hook={no_usrmerge} > "$1/etc/apt/preferences.d/usrmerge"',
        f'--customize-hook=cd "$1/etc" && (cd apt && rm -f {traces}); rm -f hostname resolv.conf',
        '--customize-hook=rm -rf "$1"/var/log/*.log "$1"/var/log/apt "$1"/var/cache/debconf/*-old',
    ]
    if MERGED_USR.is_dir():
        options.insert(0, f"--hook-dir={MERGED_USR}")
    included = [f"--include={','.join(recipe.include)}"] if recipe.include else []
    source = [mirror] if mirror else []
    return [
        "mmdebstrap", "--quiet", "--variant=apt", "--format=tar", f"--architectures={architecture}", *included,
        *options, recipe.suite, str(target), *source,
    ]  # fmt: skip


def _bootstrap_failure(recipe: Recipe, architecture: str, lines: list[str]) -> BuildFailed:
    last = tuple(lines[-20:])
    if any("can neither be executed natively nor via qemu" in line for line in lines):
        return BuildFailed(
            "EmulationUnavailable",
            f"this machine cannot run programs for {architecture}; install qemu-user-static and binfmt-support",
            last_lines=last,
        )
    return BuildFailed(
        "BaseUnreachable",
        f"no registry has {recipe.stands_for[0]} in reach, and it cannot be made from packages of {recipe.suite}; "
        "see the last lines",
        last_lines=last,
        retryable=True,
    )


def _keep(unfinished: Path, tree: Path) -> None:
    with unfinished.open("ab") as file:
        os.fsync(file.fileno())
    unfinished.replace(tree)
    sync_folder(tree.parent)


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
