"""Base images: pulled from their registry, or bootstrapped where no registry can be reached."""

import asyncio
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from controller.builds.base_uses import BaseUses
from controller.builds.bootstrap import Bootstrapper, recipe_for
from controller.builds.credentials import RegistryFiles
from controller.builds.jobs import FOR_EVERYBODY
from controller.builds.model import BuildFailed, OnLine, RegistryAccess, TargetJob
from controller.builds.outcome import NO_SPACE, UNREACHABLE
from controller.builds.podman import Podman
from controller.builds.registry import RegistryUnreachable, check_answers
from controller.builds.targets import TargetProfile

ABSENT = re.compile(
    r"manifest unknown|name unknown|not found|no image found in|does not exist|denied|unauthorized", re.I
)


@dataclass(frozen=True)
class Base:
    """A base in the builder's storage. `name` is the full name that the spec means; `digest` that of its manifest in
    its registry, "" for one that was made from packages; `kept_digest` what the builder's storage calls it by."""

    name: str
    image_id: str
    digest: str = ""
    kept_digest: str = ""


class BaseResolver:
    """Finds bases. An unreachable registry is remembered for `memory` seconds, so that builds do not wait for it.

    `allowed`: registries that users' builds may name, besides ours; any where it is empty. What a target profile names
    is allowed.
    """

    def __init__(
        self,
        podman: Podman,
        bootstrapper: Bootstrapper,
        registry: RegistryAccess,
        connect_timeout: float,
        memory: float = 60.0,
        allowed: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._podman = podman
        self._uses = BaseUses(podman.folder)
        self._bootstrapper = bootstrapper
        self._registry = registry
        self._connect_timeout = connect_timeout
        self._memory = memory
        self._allowed = frozenset(allowed)
        self._clock = clock
        self._unreachable: dict[str, tuple[float, str]] = {}
        # Each question to Podman takes a twentieth of a second: what cannot change is asked once. The storage is the
        # builder's own, so only a pull of ours brings a name into it.
        self._digests: dict[str, str] = {}
        self._never_pulled: set[tuple[str, str]] = set()

    async def resolve(self, image: str, profile: TargetProfile, temporary: Path, on_line: OnLine) -> Base:
        """The base of this name for the profile's platform, in the builder's storage. Raises BuildFailed."""
        self._require_allowed(image, profile)
        found = await self._find(full_name(image), profile, temporary, on_line)
        base = replace(found, kept_digest=await self._digest(found.image_id))
        await asyncio.to_thread(self._uses.note, base.image_id)
        return base

    async def _find(self, name: str, profile: TargetProfile, temporary: Path, on_line: OnLine) -> Base:
        try:
            await self._check_reachable(name.partition("/")[0])
            image_id = await self._pull(name, profile.platform, temporary, on_line)
            return Base(name, image_id, await self._digest(image_id))
        except RegistryUnreachable as error:
            return await self._without_registry(name, profile, str(error), on_line)

    def _require_allowed(self, image: str, profile: TargetProfile) -> None:
        """Before anything is asked of the registry: it may be any port of the builder's network."""
        registry = full_name(image).partition("/")[0]
        trusted = {*self._allowed, self._registry.address}
        if self._allowed and registry not in trusted and image not in (profile.base, *profile.bases.values()):
            raise BuildFailed(
                "BaseNotFound",
                f"{image} lies in {registry}, from which this site takes no bases; correct build.base: those of "
                f"{', '.join(sorted(trusted))} are taken",
            )

    async def _check_reachable(self, registry: str) -> None:
        until, cause = self._unreachable.get(registry, (0.0, ""))
        if self._clock() < until:
            raise RegistryUnreachable(cause)
        try:
            access = self._registry if registry == self._registry.address else None
            await check_answers(registry, self._connect_timeout, access)
        except RegistryUnreachable as error:
            # Users may name any number of them.
            now = self._clock()
            self._unreachable = {name: known for name, known in self._unreachable.items() if now < known[0]}
            self._unreachable[registry] = (now + self._memory, str(error))
            raise

    async def _pull(self, name: str, platform: str, temporary: Path, on_line: OnLine) -> str:
        on_line("system", f"pulling {name} for {platform}")
        options: tuple[str, ...] = ()
        if name.partition("/")[0] == self._registry.address:
            options = await RegistryFiles(temporary, self._registry).options()
        done = await self._podman.run("pull", "-q", "--platform", platform, *options, name, temporary=temporary)
        if done.returncode == 0:
            self._never_pulled.discard((name, platform))
            return done.stdout.strip().splitlines()[-1].removeprefix("sha256:")
        cause = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no output"
        if NO_SPACE.search(done.stderr):
            raise BuildFailed("DiskFull", f"cannot pull {name}: {cause}; free space", retryable=True)
        if UNREACHABLE.search(done.stderr) or not ABSENT.search(done.stderr):
            raise RegistryUnreachable(cause)
        raise BuildFailed(
            "BaseNotFound",
            f"the registry has no {name} for {platform} that the builder may pull: {cause}; correct build.base",
        )

    async def _without_registry(self, name: str, profile: TargetProfile, cause: str, on_line: OnLine) -> Base:
        on_line("system", cause)
        if kept := await self._pulled_before(name, profile):
            on_line("system", f"using {name} as it was pulled before")
            return Base(name, kept, await self._digest(kept))
        recipe = recipe_for(name)
        if recipe is None:
            raise BuildFailed(
                "BaseUnreachable",
                f"cannot pull {name}: {cause}; it is tried again, or take a base that needs no registry, such as "
                f"{profile.base}",
                retryable=True,
            )
        on_line("system", f"in place of {name}: the base {recipe.name} from packages of {recipe.suite}")
        return Base(name, await self._bootstrapper.image_id(recipe, profile.architecture, on_line))

    async def _digest(self, image_id: str) -> str:
        if known := self._digests.get(image_id):
            return known
        inspected = await self._podman.run("image", "inspect", "--format", "{{.Digest}}", image_id)
        digest = inspected.stdout.strip()
        if inspected.returncode != 0 or not digest.startswith("sha256:"):
            return ""
        self._digests[image_id] = digest
        return digest

    async def _pulled_before(self, name: str, profile: TargetProfile) -> str | None:
        if (name, profile.platform) in self._never_pulled:
            return None
        form = "linux/{{.Architecture}} {{.Id}}"
        found = await self._podman.run("image", "inspect", "--format", form, name)
        platform, _, image_id = found.stdout.strip().partition(" ")
        if found.returncode == 0 and platform == f"linux/{profile.architecture}":
            return image_id
        self._never_pulled.add((name, profile.platform))
        return None


def require_allowed(image: str, job: TargetJob) -> None:
    """Raises BuildFailed for a base that is another owner's: an image that lies only in the builder's storage, or one
    in our own registry below another user's name. The builder reaches all of them; a spec must not. What lies below
    `library/` there is for everybody."""
    name = full_name(image)
    registry, user, _ = job.repository.split("/", 2)
    if name.partition("/")[0] == "localhost":
        raise BuildFailed("BaseNotFound", f"{image} names no registry; correct build.base")
    if name.startswith(f"{registry}/") and not name.startswith((f"{registry}/{user}/", f"{registry}/{FOR_EVERYBODY}/")):
        raise BuildFailed("BaseNotFound", f"{image} is not an image of user {job.user_id}; correct build.base")


def full_name(image: str) -> str:
    """The name with registry and tag, as Docker reads short names."""
    first, slash, rest = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif not ("." in first or ":" in first or first == "localhost"):
        image = f"docker.io/{image}"
    elif first == "docker.io" and "/" not in rest:
        image = f"docker.io/library/{rest}"
    tagged = "@" in image or ":" in image.rpartition("/")[2]
    return image if tagged else f"{image}:latest"
