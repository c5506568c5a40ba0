"""Virtual environments, made by uv from a lock and wheels that are here, without a network.

Each is named by what it is made of, so that revisions with the same lock share one. Files are hard links into uv's
cache: two environments with a package in common have it once.
"""

import asyncio
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from baremetal_agent.virtualenv.bundle import Description
from baremetal_agent.virtualenv.commands import NOT_FOUND, Ended, run
from baremetal_agent.virtualenv.folders import Folders
from baremetal_agent.virtualenv.interpreters import find_python
from edge_agent.runtime.backend import BackendError, BackendUnavailable
from edge_agent.runtime.blobs import BlobStore, Part
from edge_agent.runtime.disk import disk_full

# Grows when environments are made in another way.
FORM = 1
LOCKED = re.compile(r"(?P<name>\S+)==\S+ --hash=(?P<digest>sha256:[0-9a-f]{64})")
PYTHON = Path("bin/python")
CACHE = "uv"


def environment_name(description: Description) -> str:
    """The same for all bundles that can share an environment."""
    made_of = [FORM, description.lock, description.python, description.platform]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:32]


def requirements(reference: str, lock: str, wheels: Mapping[str, Path]) -> str:
    """The lock with the very file of each package, by digest; what uv takes with --require-hashes. Raises BackendError
    where the lock makes no sense, or names what the bundle does not have."""
    lines = []
    for line in lock.splitlines():
        found = LOCKED.fullmatch(line)
        if found is None or found["digest"] not in wheels:
            raise BackendError("InvalidBundle", f"{reference} has no wheel for {line!r} of its lock", retryable=False)
        lines.append(f"{found['name']} @ {wheels[found['digest']].as_uri()} --hash={found['digest']}\n")
    return "".join(lines)


class Environments:
    """Below `folder`; nothing else may be there. For one event loop."""

    def __init__(self, folder: Path, blobs: BlobStore, boot: str) -> None:
        self._made = Folders(folder / "environments", boot)
        self._wheels = folder / "wheels"
        self._caches = Folders(folder / "caches", boot)
        self._blobs = blobs
        self._locks: dict[str, asyncio.Lock] = {}

    def path(self, name: str) -> Path:
        return self._made.path(name)

    def whole(self, name: str) -> bool:
        """Whether it can be used: it is complete, and the Python that it was made with is still there."""
        return self._made.whole(name) and (self.path(name) / PYTHON).exists()

    async def ensure(
        self, reference: str, description: Description, wheels: Sequence[Part], here: Awaitable[None]
    ) -> str:
        """Afterwards there is an environment for the bundle: its name. The wheels are blobs once `here` is done. Raises
        BackendError, and what `here` raises."""
        name = environment_name(description)
        async with self._locks.setdefault(name, asyncio.Lock()):
            if not self.whole(name):
                await self._make(name, reference, description, wheels, here)
        return name

    async def settle(self, name: str) -> None:
        """Afterwards it outlives a power cut, and what it holds is compiled."""
        if self._made.settled(name):
            return
        await compile_sources(self.path(name), [str(self.path(name) / "lib")])
        await self._made.settle(name)
        await self._caches.settle(CACHE)

    async def keep_only(self, names: frozenset[str], wheels: Iterable[Part]) -> None:
        """All other environments are gone, and what only they needed. Not while one is made."""
        for name in self._made.names():
            if name not in names:
                await asyncio.to_thread(self._made.remove, name)
        self._made.sweep()
        self._caches.sweep()
        await self._drop_wheels({_folder_of(wheel) for wheel in wheels})

    async def _make(
        self, name: str, reference: str, description: Description, wheels: Sequence[Part], here: Awaitable[None]
    ) -> None:
        program = await find_python(reference, description.python)
        with self._made.making(name) as fresh:
            with self._changed_cache():
                into = ["--python", str(program), str(fresh)]
                await self._uv(reference, "venv", "--relocatable", "--allow-existing", *into)
            await here
            lock = requirements(reference, description.lock, {wheel.digest: self._named(wheel) for wheel in wheels})
            if lock:
                (fresh / "requirements.lock").write_text(lock)
                await self._install(fresh, reference, wheels)

    async def _install(self, environment: Path, reference: str, wheels: Sequence[Part]) -> None:
        try:
            with self._changed_cache():
                await self._uv(
                    reference, "pip", "install", "--python", str(environment / PYTHON), "--no-index", "--no-deps",
                    "--require-hashes", "--requirement", str(environment / "requirements.lock"),
                )  # fmt: skip
        except BackendError as error:
            await self._blame_damaged(reference, wheels, error)
            raise

    def _changed_cache(self) -> AbstractContextManager[Path]:
        """What uv remembers of wheels may be torn by a power cut, and it would not look."""
        return self._caches.changing(CACHE)

    def _named(self, wheel: Part) -> Path:
        """The blob under the name that a wheel has to have, always the same, since uv knows it by its path."""
        path, blob = self._wheels / _folder_of(wheel) / wheel.title, self._blobs.path(wheel.digest)
        if not path.exists() or not path.samefile(blob):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            os.link(blob, path)
        return path

    async def _blame_damaged(self, reference: str, wheels: Sequence[Part], error: BackendError) -> None:
        """uv has looked at each wheel's hash. What the disk has spoiled is fetched anew by the next try."""
        damaged = [wheel.title for wheel in wheels if not await asyncio.to_thread(self._blobs.sound, wheel)]
        if damaged:
            message = f"{reference} is damaged on this device and is fetched anew: {', '.join(damaged)}"
            raise BackendError("ImagePullFailed", message, retryable=True) from error

    async def _drop_wheels(self, kept: set[str]) -> None:
        gone = [path for path in self._wheels.glob("*/*.whl") if path.parent.name not in kept]
        if gone:
            packages = sorted({path.name.partition("-")[0] for path in gone})
            await run(str(uv_program()), "cache", "clean", "--quiet", *packages, env=self._settings())
            for path in gone:
                shutil.rmtree(path.parent, ignore_errors=True)

    async def _uv(self, reference: str, *arguments: str) -> None:
        ended = await run(str(uv_program()), "--quiet", *arguments, env=self._settings())
        if ended.code != 0:
            raise self._failure(reference, ended)

    def _failure(self, reference: str, ended: Ended) -> BackendError:
        if ended.code == NOT_FOUND:
            return BackendUnavailable("UvUnavailable", f"uv does not run: {ended.last_words}")
        if "No space left on device" in ended.output:
            return disk_full(reference, self._wheels, 0)
        message = f"cannot install {reference}: uv says: {ended.last_words}"
        return BackendError("InstallFailed", message, retryable=True)

    def _settings(self) -> dict[str, str]:
        """What uv would else take from the user who happens to run the agent, and from the network."""
        return {
            "UV_CACHE_DIR": str(self._caches.path(CACHE)),
            "UV_LINK_MODE": "hardlink",
            "UV_NO_CONFIG": "1",
            "UV_OFFLINE": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "VIRTUAL_ENV": "",
        }


async def compile_sources(environment: Path, folders: Sequence[str]) -> None:
    """The Python files below these folders are compiled, as far as they can be; those that are no Python of this
    version are found in many packages."""
    argv = ("nice", "-n", "19", str(environment / PYTHON), "-I", "-m", "compileall", "-q", "-j", "1", *folders)
    await run(*argv)


def uv_program() -> Path:
    """That of the agent's own environment, before what else this device may have."""
    own = Path(sys.executable).parent / "uv"
    return own if own.exists() else Path(shutil.which("uv") or own)


def _folder_of(wheel: Part) -> str:
    return wheel.digest.removeprefix("sha256:")
