"""Base images: pulled from their registry, or bootstrapped where no registry can be reached."""

import asyncio
import re
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from controller.builds.base_platforms import offered
from controller.builds.base_uses import BaseUses
from controller.builds.bootstrap import Bootstrapper, recipe_for
from controller.builds.credentials import RegistryFiles
from controller.builds.jobs import FOR_EVERYBODY
from controller.builds.model import BuildFailed, OnLine, RegistryAccess, TargetJob
from controller.builds.outcome import NO_SPACE, UNREACHABLE
from controller.builds.podman import Podman
from controller.builds.processes import Completed
from controller.builds.pulled_bases import PulledBases
from controller.builds.registry import RegistryUnreachable, check_answers
from controller.builds.targets import TargetProfile
from controller.spec.image_names import full_name

ABSENT = re.compile(
    r"manifest unknown|name unknown|not found|no image found in|does not exist|denied|unauthorized"
    r"|invalid reference format",
    re.I,
)
OF_OTHER_PLATFORMS = re.compile(r"no image found in (image index|manifest list)")


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
        unwanted: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        """`unwanted` is told the ids of images that were pulled and are no bases."""
        self._podman = podman
        self._uses = BaseUses(podman.folder)
        self._pulled = PulledBases(podman)
        self._bootstrapper = bootstrapper
        self._registry = registry
        self._connect_timeout = connect_timeout
        self._memory = memory
        self._allowed = frozenset(allowed)
        self._clock = clock
        self._unwanted = unwanted
        self._unreachable: dict[str, tuple[float, str]] = {}

    async def resolve(self, image: str, profile: TargetProfile, temporary: Path, on_line: OnLine) -> Base:
        """The base of this name for the profile's platform, in the builder's storage. Raises BuildFailed."""
        self._require_allowed(image, profile)
        found = await self._find(full_name(image), profile, temporary, on_line)
        base = replace(found, kept_digest=(await self._pulled.facts(found.image_id)).digest)
        await asyncio.to_thread(self._uses.note, base.image_id)
        return base

    async def _find(self, name: str, profile: TargetProfile, temporary: Path, on_line: OnLine) -> Base:
        try:
            await self._check_reachable(name.partition("/")[0])
            return await self._pull(name, profile.platform, temporary, on_line)
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

    async def _pull(self, name: str, platform: str, temporary: Path, on_line: OnLine) -> Base:
        on_line("system", f"pulling {name} for {platform}")
        options: tuple[str, ...] = ()
        if name.partition("/")[0] == self._registry.address:
            options = await RegistryFiles(temporary, self._registry).options()
        done = await self._podman.run("pull", "-q", "--platform", platform, *options, name, temporary=temporary)
        if done.returncode != 0:
            raise await self._pull_failure(name, platform, done)
        image_id = done.stdout.strip().splitlines()[-1].removeprefix("sha256:")
        facts = await self._pulled.facts(image_id)
        # Of a name that stands for one image only, Podman takes that, whatever its platform.
        if not facts.platform.serves(platform):
            self._unwanted([image_id])
            raise _not_for(platform, name, f"{facts.platform} only")
        await self._pulled.keep(name, platform, image_id)
        return Base(name, image_id, facts.digest)

    async def _pull_failure(self, name: str, platform: str, done: Completed) -> Exception:
        cause = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no output"
        if NO_SPACE.search(done.stderr):
            return BuildFailed("DiskFull", f"cannot pull {name}: {cause}; free space", retryable=True)
        if UNREACHABLE.search(done.stderr):
            return RegistryUnreachable(cause)
        if not ABSENT.search(done.stderr):
            # Another base in its place would be a surprise while its registry answers.
            return BuildFailed(
                "BaseNotGiven", f"the registry does not give {name} now: {cause}; it is tried again", retryable=True
            )
        if OF_OTHER_PLATFORMS.search(done.stderr) and (there := await offered(name, self._registry)):
            return _not_for(platform, name, ", ".join(map(str, there)))
        return BuildFailed(
            "BaseNotFound",
            f"the registry has no {name} for {platform} that the builder may pull: {cause}; correct build.base",
        )

    async def _without_registry(self, name: str, profile: TargetProfile, cause: str, on_line: OnLine) -> Base:
        on_line("system", cause)
        if kept := await self._pulled.find(name, profile.platform):
            on_line("system", f"using {name} as it was pulled before")
            return Base(name, kept, (await self._pulled.facts(kept)).digest)
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


def _not_for(platform: str, name: str, there: str) -> BuildFailed:
    return BuildFailed(
        "BaseNotFound",
        f"the registry has {name} for {there}, not for {platform}; correct build.base, or take this target out",
    )


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
