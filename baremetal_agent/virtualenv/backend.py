"""`DeployBackend` for machines without containers: bundles in virtual environments, as processes of the device.

What each verb promises, and by which means, is told in docs/design/baremetal.md.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from baremetal_agent.virtualenv.belongings import Store
from baremetal_agent.virtualenv.commands import run
from baremetal_agent.virtualenv.confinement import refuse_loosened, refuse_open, refuse_rights
from baremetal_agent.virtualenv.environments import uv_program
from baremetal_agent.virtualenv.folders import boot_id
from baremetal_agent.virtualenv.installer import Installer
from baremetal_agent.virtualenv.instances import Ended, Instance, Instances, Started
from baremetal_agent.virtualenv.launcher import Launcher, Means
from baremetal_agent.virtualenv.packages import Packages
from baremetal_agent.virtualenv.placing import own_groups
from baremetal_agent.virtualenv.ports import first_unprivileged, refuse_mapped
from baremetal_agent.virtualenv.processes import KILL_SECONDS, is_same, open_process, send
from baremetal_agent.virtualenv.releases import Release
from baremetal_agent.virtualenv.sessions import PipeSession, TerminalSession, run_to_end
from baremetal_agent.virtualenv.starting import Starter
from baremetal_agent.virtualenv.supervision import Supervision
from baremetal_agent.virtualenv.units import find_units
from edge_agent.runtime.backend import (
    BackendError,
    BackendFacts,
    BackendUnavailable,
    Capabilities,
    ExecResult,
    ExecSession,
    Handle,
    LogLine,
    LogQuery,
    Observed,
    Phase,
    Progress,
    Stats,
    TerminalSize,
)
from edge_agent.runtime.deaths import DeathWatch, wait_for_end
from edge_agent.runtime.disk import disk_told
from edge_agent.runtime.fetching import Credentials
from edge_agent.runtime.fitting import refuse_unsupported
from edge_agent.runtime.metering import Marks
from edge_agent.runtime.model import ArtifactKind, Workload
from edge_agent.runtime.open_commands import OpenCommands
from edge_agent.runtime.secret_files import place
from edge_agent.runtime.sockets import holds, listeners
from edge_agent.runtime.volume_store import Stages, VolumeStore

NAME = "virtualenv"


class VirtualenvBackend:
    """Runs bundles; all that it needs lies below `state_dir`, which is one agent's own.

    `credentials` gives user and password for the registry, asked for each fetch; `registry_ca` verifies its
    certificate; `install_packages`: Debian packages that a bundle needs are installed by apt-get.
    """

    def __init__(
        self,
        owner: str,
        state_dir: Path,
        credentials: Credentials,
        registry_ca: Path | None,
        install_packages: bool = False,
    ) -> None:
        self._folder = state_dir.absolute()
        boot = boot_id()
        self._installer = Installer(self._folder, credentials, registry_ca, Packages(install_packages), boot)
        self._instances = Instances(self._folder / "instances", owner)
        self._launcher: Launcher = Supervision(self._instances, boot, find_units() or own_groups())
        self._store = Store(self._folder, owner)
        self._contents = VolumeStore(self._folder / "project-volumes", credentials, registry_ca)
        self._starter = Starter(owner, boot, self._instances, self._launcher, self._store)
        self._marks = Marks(place(owner).with_name(f"used-{owner}"))
        self._deaths = DeathWatch()
        self._opened = OpenCommands(self._folder / "commands")
        self._looked = False
        self._looking = asyncio.Lock()
        self._closed = False

    async def probe(self) -> BackendFacts:
        asked = await run(str(uv_program()), "--version")
        problem = "" if asked.code == 0 else f"UvUnavailable: uv does not run: {asked.last_words}"
        try:
            self._require_storage()
        except BackendUnavailable as error:
            problem = f"{error.reason}: {error.message}"
        version = [*asked.output.split(), "", ""][1]
        return BackendFacts(NAME, version, capabilities(await self._launcher.means()), problem, self._folder)

    def _require_storage(self) -> None:
        """A disk that fails is often mounted read-only: then nothing new can be begun, and what runs goes on."""
        with disk_told("bundles", self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self._folder, os.W_OK):
            raise BackendUnavailable("StorageUnavailable", f"{self._folder} cannot be written to")

    async def prepare(self, workload: Workload, progress: Callable[[Progress], None]) -> None:
        self._require_storage()
        await self._refuse(workload)
        stages = Stages(progress, sum(volume.size for volume in workload.project_volumes))
        await self._installer.prepare(workload.artifact, stages.artifact)
        await self._contents.prepare(workload.project_volumes, stages.volumes)

    async def _refuse(self, workload: Workload) -> None:
        means = await self._launcher.means()
        refuse_unsupported(workload, capabilities(means))
        refuse_mapped(workload)
        refuse_loosened(workload)
        root = os.geteuid() == 0
        refuse_open(workload, means.lacking, root=root)
        if not root:
            refuse_rights(workload, first_unprivileged())

    async def start(self, workload: Workload) -> Handle:
        self._require_storage()
        await self._refuse(workload)
        release = self._installer.find(workload.artifact)
        if release is None:
            message = f"{workload.artifact.reference} is not on this device"
            raise BackendError("NotPrepared", message, retryable=False)
        launching = asyncio.ensure_future(self._launch(workload, release))
        try:
            return await asyncio.shield(launching)
        except asyncio.CancelledError:
            # What is half started cannot be called back: what becomes of it is removed.
            with contextlib.suppress(BackendError):
                await self.remove(await launching)
            raise

    async def _launch(self, workload: Workload, release: Release) -> Handle:
        with disk_told(workload.artifact.reference, self._folder):
            for old in self._instances.all():
                if old.key == workload.key:
                    await self._replace(old)
            contents = self._contents.places(workload.project_volumes)
            instance = await self._starter.start(workload, release, contents)
        self._watch(instance)
        return instance.handle

    async def _replace(self, old: Instance) -> None:
        if old.id in self._starter.starting or await self._launcher.attend(old) is None:
            message = f"{old.name} runs already; remove it first"
            raise BackendError("AlreadyRunning", message, retryable=True)
        await self.remove(old.handle)

    def _watch(self, instance: Instance) -> None:
        self._deaths.add(instance.id, lambda: self._launcher.watch(instance))

    async def list(self) -> Sequence[Observed]:
        async with self._looking:
            if not self._looked:
                self._looked = True
                await self._opened.kill_left()
                await asyncio.to_thread(self._instances.sweep)
            found = [await self._observe(instance) for instance in self._instances.all()]
        return [seen for seen in found if seen is not None]

    async def _observe(self, instance: Instance) -> Observed | None:
        """None for what a killed agent has left before anything ran."""
        if instance.id in self._starter.starting:
            return observed(instance, Phase.CREATED, None, None)
        ended = await self._launcher.attend(instance)
        started = self._instances.started(instance)
        if ended is None:
            self._watch(instance)
            return observed(instance, Phase.RUNNING, started, None)
        if started is None:
            await self._starter.discard(instance)
            return None
        return observed(instance, Phase.EXITED, started, ended)

    async def watch(self) -> AsyncIterator[None]:
        with self._deaths.bell.listen() as rung:
            while not self._closed:
                await rung.wait()
                rung.clear()
                if not self._closed:
                    yield

    async def stop(self, handle: Handle, grace: float) -> None:
        instance, started = self._known(handle)
        if instance is None or started is None:
            return
        process = open_process(started.pid, started.began)
        if process is not None:
            try:
                await self._end(instance, process, grace)
            finally:
                os.close(process)
        await self._launcher.attend(instance)

    async def _end(self, instance: Instance, process: int, grace: float) -> None:
        send(process, signal.SIGTERM)
        if not await wait_for_end(process, grace):
            await self._launcher.kill(instance)
            if not await wait_for_end(process, KILL_SECONDS):
                message = f"{instance.id} does not end although it was killed"
                raise BackendError("StopFailed", message, retryable=True)

    async def remove(self, handle: Handle) -> None:
        instance = self._instances.find(handle)
        if instance is not None:
            await self._kill(instance)
            await self._starter.discard(instance)

    async def _kill(self, instance: Instance) -> None:
        await self._launcher.kill(instance)
        started = self._instances.started(instance)
        process = open_process(started.pid, started.began) if started is not None else None
        if process is not None:
            try:
                await self._end(instance, process, 0)
            finally:
                os.close(process)
        await self._launcher.attend(instance)

    async def logs(self, handle: Handle, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        instance = self._instances.find(handle)
        if instance is None:
            raise BackendError("NoSuchInstance", f"{handle.value} does not exist", retryable=False)
        async with contextlib.aclosing(self._launcher.logs(instance, query)) as lines:
            async for line in lines:
                yield line

    async def exec(self, handle: Handle, command: Sequence[str], timeout: float) -> ExecResult:
        argv, environment = self._entering(handle, command, terminal=False)
        return await run_to_end(argv, environment, command, timeout)

    async def open_exec(self, handle: Handle, command: Sequence[str], terminal: TerminalSize | None) -> ExecSession:
        argv, environment = self._entering(handle, command, terminal=terminal is not None)
        if terminal is None:
            return await PipeSession.open(argv, environment, self._opened)
        return await TerminalSession.open(argv, environment, terminal, self._opened)

    def _entering(
        self, handle: Handle, command: Sequence[str], *, terminal: bool
    ) -> tuple[Sequence[str], Mapping[str, str]]:
        instance, started = self._running(handle)
        argv = self._launcher.entering(instance, started, command, terminal=terminal)
        return argv, self._instances.environment(instance)

    def _known(self, handle: Handle) -> tuple[Instance | None, Started | None]:
        instance = self._instances.find(handle)
        return instance, self._instances.started(instance) if instance is not None else None

    def _running(self, handle: Handle) -> tuple[Instance, Started]:
        instance, started = self._known(handle)
        if instance is None or started is None or not is_same(started.pid, started.began):
            raise BackendError("NotRunning", f"{handle.value} does not run", retryable=True)
        return instance, started

    async def listens(self, handle: Handle, port: str) -> bool | None:
        """The network is the device's: only a socket of the instance's own counts."""
        instance, started = self._known(handle)
        number = dict(instance.ports).get(port) if instance is not None else None
        if instance is None or started is None or not is_same(started.pid, started.began):
            return False
        found = listeners(started.pid, number) if number is not None else None
        if not found:
            return None if found is None else False
        return any(holds(pid, found) for pid in self._launcher.processes(instance, started))

    async def stats(self, handle: Handle) -> Stats:
        instance, started = self._running(handle)
        return self._marks.completed(handle.value, self._launcher.stats(instance, started))

    async def prune(self, keep: frozenset[str]) -> None:
        await self._installer.prune(keep | {instance.digest for instance in self._instances.all()})
        used = {digest for instance in self._instances.all() for digest in instance.volumes}
        await self._contents.prune(keep | used)
        # Some may have been started meanwhile.
        instances = self._instances.all()
        with disk_told("bundles", self._folder):
            self._store.tidy({one.deployment_id for one in instances}, {one.secrets for one in instances})
        self._marks.keep_only({instance.handle.value for instance in instances})

    async def forget(self, deployment_id: str | None) -> None:
        with disk_told("volumes", self._folder):
            await asyncio.to_thread(self._store.forget, deployment_id)
        if deployment_id is None:
            await self._launcher.leave()

    async def close(self) -> None:
        self._closed = True
        self._deaths.bell.ring()
        self._deaths.close()
        self._launcher.close()
        await self._installer.close()


def capabilities(means: Means) -> Capabilities:
    """By what this device has. Without a place of its own a workload can be shown nothing at a path of its wish."""
    apart = bool(means.isolation)
    return Capabilities(
        artifacts=frozenset({ArtifactKind.BUNDLE}),
        exec=True,
        tty=True,
        stats=True,
        mounts=apart,
        volumes=apart,
        project_volumes=apart,
        secrets=apart,
        devices=True,
        cpu_limit="cpu" in means.limits,
        memory_limit="memory" in means.limits,
        pids_limit="pids" in means.limits,
        shared_memory_limit=apart,
        cpu_set="cpuset" in means.limits,
        limits_by=means.limits_by,
        isolation=means.isolation,
        supervision=means.supervision,
    )


def observed(instance: Instance, phase: Phase, started: Started | None, ended: Ended | None) -> Observed:
    began = started.time if started is not None else 0.0
    return Observed(
        handle=instance.handle,
        deployment_id=instance.deployment_id,
        revision=instance.revision,
        artifact_digest=instance.digest,
        phase=phase,
        started_at=began,
        finished_at=max(ended.time, began) if ended is not None and ended.time else 0.0,
        exit_code=ended.code if ended is not None else None,
        exit_reason=ended.reason if ended is not None else "",
        addresses=tuple((name, ("127.0.0.1", port)) for name, port in instance.ports) if phase is Phase.RUNNING else (),
    )
