"""A builder host other than this machine: where it is, what it can, and its machine while one build uses it."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from controller.builds import processes, registry
from controller.builds.bases import Base
from controller.builds.cancelling import despite_cancel, in_thread
from controller.builds.credentials import RegistryFiles
from controller.builds.hosts import Abilities
from controller.builds.leavings import Leavings
from controller.builds.log import BuildLog
from controller.builds.machine import HostLost, Machine, push
from controller.builds.model import BuildFailed, RegistryAccess
from controller.builds.outcome import UNREACHABLE, push_failure
from controller.builds.own_place import PLATFORMS
from controller.builds.podman import Podman
from controller.builds.remote_images import FindHelper, Helper, checked, exists, send
from controller.builds.remote_keeping import HostKeeper, HostPolicy, ask
from controller.builds.remote_podman import RemotePodman
from controller.builds.remote_uses import HostUses, Kind, cache_ids
from controller.builds.sweeping import DEADLINE, RemoteBuild, containers, end_steps, read_notes, start_killer, sweep
from controller.builds.targets import TargetProfile
from controller.builds.tunnels import Tunnel

KEEP = HostPolicy()
# What builds there hinder from going waits for so long that none runs; then none begins until it has gone.
LONGEST_HINDERED = 86400.0


class RemotePlace:
    """A host behind `tunnel`. `own`: this machine's Podman, which has the bases. `journal`: a folder of its own, where
    builds that run there are noted, so that a later process removes what is left of them."""

    def __init__(
        self,
        address: str,
        tunnel: Tunnel,
        platforms: Sequence[str],
        own: Podman,
        journal: Path,
        find_helper: FindHelper,
        policy: HostPolicy = KEEP,
    ) -> None:
        """`find_helper`: the image whose shell looks after builds there."""
        self.address = address
        self._tunnel = tunnel
        self._platforms = frozenset(platforms)
        self._own = own
        self._journal = journal
        self._uses = HostUses(journal)
        self._keeper = HostKeeper(address, self._uses, policy)
        self._helper = Helper(find_helper, own, self._base_used)
        self._leavings = Leavings()
        self._architecture = ""
        # Entries of the journal whose builds run in this process.
        self._running: set[Path] = set()
        # Entries whose steps were ended, while other builds ran.
        self._ended: set[Path] = set()
        # Held while what is left is removed: a build that begins meanwhile would lose its containers.
        self._sweeping = asyncio.Lock()
        # Since when builds hinder something from going.
        self._hindered_since: float | None = None

    @property
    def wants_rest(self) -> bool:
        since = self._hindered_since
        return since is not None and time.monotonic() - since >= LONGEST_HINDERED

    async def probe(self) -> Abilities:
        async with self._connected() as podman:
            native = await self._ask_platform(podman)
            await self._sweep(podman)
            await self._keeper.require_room(podman)
        own = frozenset({native})
        return Abilities(own & (self._platforms or own), self._platforms - own)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Machine]:
        async with self._connected() as podman:
            if not self._architecture:
                await self._ask_platform(podman)
            entry = self._journal / f"{secrets.token_hex(8)}.json"
            async with self._sweeping:
                self._running.add(entry)
            machine = RemoteMachine(
                podman, self._own, self._helper, self._leavings, self._uses, self._architecture, entry
            )
            try:
                yield machine
            except HostLost:
                # What is left there is removed when the host is seen again.
                machine.clean = False
                raise
            finally:
                self._running.discard(entry)
                if machine.clean:
                    entry.unlink(missing_ok=True)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[RemotePodman]:
        await asyncio.to_thread(self._own.prepare)
        async with self._tunnel.open(self._own.run_folder, self._own.environment()) as socket:
            podman = RemotePodman(self._own, socket, self.address)
            await podman.require_alive()
            yield podman

    async def _ask_platform(self, podman: RemotePodman) -> str:
        self._architecture = (await ask(podman, self.address)).architecture
        return PLATFORMS.get(self._architecture, f"linux/{self._architecture}")

    async def _sweep(self, podman: RemotePodman) -> None:
        """Removes what is left of builds that ended without us."""
        await asyncio.to_thread(self._journal.mkdir, parents=True, exist_ok=True, mode=0o700)
        async with self._sweeping:
            for entry, build in await asyncio.to_thread(read_notes, self._journal, self._running):
                # A build without its base has not begun.
                begun = await exists(podman, build.images[0])
                if self._running:
                    # Which working containers are left, and which a running build has, can not be told apart.
                    if begun and entry not in self._ended:
                        await end_steps(podman, build, await self._helper.on(podman, self._architecture))
                        self._ended.add(entry)
                    continue
                if begun:
                    await sweep(podman, build, await self._helper.on(podman, self._architecture))
                await asyncio.to_thread(entry.unlink, missing_ok=True)
                self._ended.discard(entry)
            if not self._running:
                await self._keep(podman)
        await self._note_hindrance()

    async def _keep(self, podman: RemotePodman) -> None:
        """The disk there is in order."""

        async def tool() -> str:
            return await self._helper.on(podman, self._architecture)

        await self._keeper.tidy(podman, tool)
        await self._keeper.make_room(podman, tool)

    async def _note_hindrance(self) -> None:
        due = await asyncio.to_thread(self._keeper.due)
        hindered = self._running and (self._leavings.untidy or due)
        if not hindered:
            self._hindered_since = None
        elif self._hindered_since is None:
            self._hindered_since = time.monotonic()

    def _base_used(self, image_id: str, sent: bool) -> None:
        _base_used(self._uses, image_id, sent)


class RemoteMachine:
    """A builder host during one build."""

    def __init__(
        self,
        podman: RemotePodman,
        own: Podman,
        helper: Helper,
        leavings: Leavings,
        uses: HostUses,
        architecture: str,
        entry: Path,
    ) -> None:
        self.podman: Podman = podman
        self.leavings = leavings
        self.architecture = architecture
        # Whether nothing can be left there.
        self.clean = True
        self._podman = podman
        self._own = own
        self._helper = helper
        self._uses = uses
        self._entry = entry

    async def check(self, profile: TargetProfile) -> None:
        """What the host can run was asked when it was chosen."""

    async def have_base(self, base: Base, log: BuildLog) -> None:
        """Pulled by the host where it can be pulled and is the same; sent by this machine otherwise."""
        await self._helper.on(self.podman, self.architecture)
        sent = not await exists(self.podman, base.image_id)
        if sent:
            log("system", f"sending {base.name} to the builder host")
            await send(self._own, self.podman, base)
        await in_thread(_base_used, self._uses, base.image_id, sent)

    async def build(self, arguments: Sequence[str], base: Base, scratch: Path, log: BuildLog) -> int:
        before = tuple(str(one["Id"]) for one in await containers(self.podman))
        group = f"longshore-{self._entry.stem}"
        note = RemoteBuild(group, (base.image_id,), before)
        await in_thread(note.write, self._entry)
        # By this file the copy of the context there is known, if the host crashes and it stays there.
        await in_thread((Path(arguments[-1]) / f".{group}").touch)
        await in_thread(scratch.mkdir, exist_ok=True)
        await in_thread(self._note_caches, Path(arguments[arguments.index("--file") + 1]))
        argv = self.podman.argv(["build", "--cgroup-parent", f"/{group}", *arguments])
        try:
            status = await processes.stream(argv, self.podman.environment(scratch), log, self._stop(note))
        finally:
            # Containers may stand on these from now on.
            note = RemoteBuild(group, (base.image_id, *log.step_images()), before)
            await despite_cancel(asyncio.to_thread(note.write, self._entry))
        if status != 0:
            await self._podman.require_alive()
            return status
        await in_thread(self._uses.note, Kind.IMAGE, arguments[arguments.index("--tag") + 1])
        return status

    def _note_caches(self, containerfile: Path) -> None:
        for name in cache_ids(containerfile):
            self._uses.note(Kind.CACHE, name)

    def _stop(self, note: RemoteBuild) -> processes.Stop:
        async def stop(process: asyncio.subprocess.Process) -> None:
            """Ends the step there; then the service tells the client that the build has failed."""
            with contextlib.suppress(BuildFailed):
                helper = await self._helper.on(self.podman, self.architecture)
                killer = await start_killer(self.podman, note, helper)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DEADLINE):
                        await process.wait()
                await self.podman.run("rm", "-f", "-t", "0", "-i", killer)
            if process.returncode is None:
                self.clean = False
                await processes.stop_group(process)

        return stop

    async def push(self, image: str, target: str, folder: Path, access: RegistryAccess, log: BuildLog) -> str:
        """By the host itself; by this machine where the host cannot reach the registry or does not trust it."""
        authfile = (await RegistryFiles(folder, access).options())[:2]
        pushed = await self.podman.run("push", "--quiet", *authfile, image, f"docker://{target}")
        if pushed.returncode != 0 and UNREACHABLE.search(pushed.stderr):
            log("system", "the builder host cannot push to the registry; the image travels through the controller")
            return await self._push_from_here(image, target, folder, access)
        if pushed.returncode != 0:
            raise push_failure(pushed.stderr, target.rpartition(":")[0])
        return await _digest_at(target, image, access)

    async def _push_from_here(self, image: str, target: str, folder: Path, access: RegistryAccess) -> str:
        archive = folder / "image.tar"
        await checked(self.podman, "save", "--quiet", "--format", "oci-archive", "--output", str(archive), image)
        kept = self._own.holds(image)
        try:
            await checked(self._own, "load", "--quiet", "--input", str(archive))
            await asyncio.to_thread(archive.unlink)
            await asyncio.to_thread((folder / "scratch").mkdir, exist_ok=True)
            return await push(self._own, image, target, folder, access)
        finally:
            # Also where loading it was cut short; not what a build on this machine has made.
            if not kept:
                await despite_cancel(self._own.run("rmi", "--no-prune", image))

    async def remove_leftovers(self) -> None:
        """The service has removed containers and mounts; what a lost host has is removed when it is seen again."""


def _base_used(uses: HostUses, image_id: str, sent: bool) -> None:
    if sent:
        uses.note(Kind.BASE, image_id)
    else:
        uses.used(Kind.BASE, image_id)


async def _digest_at(target: str, image: str, access: RegistryAccess) -> str:
    """The digest of this image at this tag. Raises BuildFailed where something else lies there, or nothing."""
    repository, _, tag = target.rpartition(":")
    try:
        manifest = await registry.get_manifest(repository, tag, access)
    except registry.RegistryUnreachable as error:
        raise BuildFailed(
            "RegistryUnreachable", f"pushed {target}, but cannot see it: {error}", retryable=True
        ) from error
    config = {} if manifest is None else json.loads(manifest.body).get("config") or {}
    if manifest is None or config.get("digest") != f"sha256:{image}":
        raise BuildFailed("RegistryUnreachable", f"{target} is not what was pushed there", retryable=True)
    return manifest.digest
