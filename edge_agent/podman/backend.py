"""`DeployBackend` over Podman 4.3 or newer, spoken to over its API socket.

Restarts, back-off and health checks are the agent's own work; Podman starts containers and keeps their log. What Podman
says is checked against the kernel, since it may believe for ever that a dead container runs.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import structlog

from edge_agent.podman import abilities, machine, spec, trust
from edge_agent.podman.connection import Connection
from edge_agent.podman.container import HANDLE_VERSION, Container
from edge_agent.podman.errors import NOT_STOPPED, ApiError, start_error
from edge_agent.podman.exec import Commands, not_running
from edge_agent.podman.images import Images
from edge_agent.podman.inventory import Inventory
from edge_agent.podman.ledger import Ledger
from edge_agent.podman.service import PodmanService
from edge_agent.podman.storage.keeper import StorageKeeper
from edge_agent.podman.volumes import Volumes
from edge_agent.runtime.backend import (
    BackendError,
    BackendFacts,
    BackendUnavailable,
    ExecResult,
    ExecSession,
    Handle,
    LogLine,
    LogQuery,
    Observed,
    Progress,
    Stats,
    TerminalSize,
)
from edge_agent.runtime.deaths import wait_for_end
from edge_agent.runtime.fail_points import reach
from edge_agent.runtime.fitting import refuse_unsupported
from edge_agent.runtime.log_file import read_log
from edge_agent.runtime.metering import Marks, Meter
from edge_agent.runtime.model import Workload
from edge_agent.runtime.open_commands import OpenCommands
from edge_agent.runtime.secret_files import SecretFolders, place
from edge_agent.runtime.shares import chosen_cores
from edge_agent.runtime.volume_store import Stages, VolumeStore

log = structlog.get_logger()

# A killed process that is in the middle of a system call ends with a delay.
KILL_SECONDS = 10.0
# For a monitor to note how its container ended, and to take down its network.
CLEANUP_SECONDS = 10.0
# What a start fails with where the files of an image are damaged, among other causes.
OF_DAMAGED_IMAGES = (
    "WrongArchitecture",
    "CommandNotFound",
    "CommandNotExecutable",
    "StartFailed",
    "MountSourceMissing",
)


class PodmanBackend:
    """Runs workloads as containers that carry the label of `owner`; several owners may share one Podman.

    `credentials` gives user and password for the registry, asked for each pull; `registry_ca` verifies its certificate.
    `url` names an API service that others run; without it one is started on demand, its files in `state_dir`.
    """

    def __init__(
        self,
        owner: str,
        state_dir: Path,
        credentials: Callable[[], Awaitable[tuple[str, str]]],
        registry_ca: Path | None,
        url: str | None = None,
    ) -> None:
        self._owner = owner
        ledger = Ledger(state_dir.absolute() / "images.json")
        self._keeper = StorageKeeper(state_dir.absolute(), ledger.entries, enabled=url is None)
        self._service = PodmanService(state_dir.absolute(), self._keeper.mend_database)
        self._connection = Connection(self._service, url)
        self._images = Images(
            self._connection,
            credentials,
            registry_ca,
            certs_folder=trust.certs_folder(None if url else self._service.home),
            copy_folder=self._service.copy_folder,
            ledger=ledger,
            keeper=self._keeper,
            idle=self._idle,
        )
        self._inventory = Inventory(self._connection, owner)
        self._volumes = Volumes(self._connection, owner)
        self._contents = VolumeStore(state_dir.absolute() / "project-volumes", credentials, registry_ca)
        self._secrets = SecretFolders(place(owner))
        self._meter = Meter()
        self._marks = Marks(place(owner).with_name(f"used-{owner}"))
        self._opened = OpenCommands(self._service.folder / "commands")
        self._commands = Commands(self._connection, self._opened)
        self._looked = False
        self._abilities: abilities.Abilities | None = None
        self._closed = False

    async def probe(self) -> BackendFacts:
        try:
            info = await self.info()
        except BackendUnavailable as error:
            return BackendFacts("podman", "", abilities.UNKNOWN, f"{error.reason}: {error.message}")
        self._abilities = abilities.abilities(info)
        able = self._abilities
        return BackendFacts("podman", str(info["version"]["Version"]), able.capabilities, store=able.store)

    async def info(self) -> Mapping[str, Any]:
        """What Podman says of itself and this machine. Raises BackendUnavailable."""
        try:
            found: Mapping[str, Any] = await self._connection.call("GET", "info")
        except ApiError as error:
            raise BackendUnavailable("PodmanUnavailable", str(error)) from error
        return found

    async def prepare(self, workload: Workload, progress: Callable[[Progress], None]) -> None:
        able = await self._able()
        refuse_unsupported(workload, able.capabilities)
        stages = Stages(progress, sum(volume.size for volume in workload.project_volumes))
        await self._images.prepare(workload, stages.artifact, able.store)
        await self._contents.prepare(workload.project_volumes, stages.volumes)

    async def _able(self) -> abilities.Abilities:
        if self._abilities is None:
            self._abilities = abilities.abilities(await self.info())
        return self._abilities

    async def start(self, workload: Workload) -> Handle:
        await self._remove_leftovers(workload)
        await self._await_ports(workload)
        launching = asyncio.ensure_future(self._launch(workload))
        try:
            return await asyncio.shield(launching)
        except asyncio.CancelledError:
            # A request that is on its way cannot be called back: what it makes is removed.
            with contextlib.suppress(BackendError):
                await self.remove(await launching)
            raise

    async def _launch(self, workload: Workload) -> Handle:
        setting = await self._setting(workload)
        body = spec.create_body(workload, self._owner, setting)
        container_id = str(body["name"])
        reach("start.described")
        try:
            await self._volumes.ensure(workload)
            container_id = str((await self._connection.call("POST", "containers/create", body=body))["Id"])
            reach("start.created")
            self._inventory.begin_start(container_id)
            await self._connection.call("POST", f"containers/{container_id}/start")
            await self._inventory.finish_start(container_id)
        except ApiError as error:
            await self._discard(container_id, setting.secret_folder)
            failure = start_error(workload, error.message)
            if failure.reason in OF_DAMAGED_IMAGES:
                await self._images.require_sound(workload.artifact, (await self._able()).store, doubted=True)
            raise failure from error
        except Exception:
            # Whatever it was: a container that nobody knows of would hold its port, and be found again and again.
            await self._discard(container_id, setting.secret_folder)
            raise
        return Handle(HANDLE_VERSION, container_id)

    async def _setting(self, workload: Workload) -> spec.Setting:
        able = await self._able()
        refuse_unsupported(workload, able.capabilities)
        await self._images.require_sound(workload.artifact, able.store)
        contents = {volume.target: files for volume, files in self._contents.places(workload.project_volumes)}
        image = await self._images.facts(workload.artifact)
        others = await self._inventory.containers()
        taken = [other.cpu_set for other in others if self._inventory.runs(other)]
        # A share is kept without a choice of cores, where there can be none.
        cores = chosen_cores(workload.resources, taken) if able.capabilities.cpu_set else ""
        folder, files = self._secrets.write(workload)
        reach("start.gathered")
        return spec.Setting(image.user, image.variables, cores, folder, files, contents)

    async def _idle(self) -> frozenset[str]:
        found = await self._inventory.containers()
        return frozenset(container.id for container in found if not self._inventory.runs(container))

    async def _remove_leftovers(self, workload: Workload) -> None:
        for old in await self._inventory.containers():
            if old.key == workload.key:
                if self._inventory.runs(old):
                    message = f"{workload.name} runs already; remove it first"
                    raise BackendError("AlreadyRunning", message, retryable=True)
                await self.remove(old.handle)

    async def _await_ports(self, workload: Workload) -> None:
        """What was at these ports before is cleaned up first: later it would take away rules of the new one."""
        wanted = {port.host_port for port in workload.ports}
        for old in await self._inventory.containers():
            if not self._inventory.runs(old) and wanted & {number for _, number in old.published.values()}:
                await _cleaned_up(old)

    async def _discard(self, container: str, secret_folder: str) -> None:
        """Removes what a failed start has left, by id or name; best effort, since the caller gets the first error."""
        with contextlib.suppress(BackendError):
            await self._delete(container)
        self._secrets.remove(secret_folder)
        self._inventory.forget(container)

    async def list(self) -> Sequence[Observed]:
        if not self._looked:
            self._looked = True
            await self._opened.kill_left()
            await self._remove_orphans({container.id for container in await self._inventory.containers()})
        found = await self._inventory.containers()
        self._keeper.note_containers({container.id for container in found})
        return [self._inventory.observed(container) for container in found]

    async def _remove_orphans(self, listed: Set[str]) -> None:
        """What a lost database of Podman has left of this agent's containers; best effort, again in the next life."""
        for container_id in self._keeper.orphans(listed):
            log.warning("orphan_removed", container=container_id)
            with contextlib.suppress(BackendError):
                await self._delete(container_id)

    async def watch(self) -> AsyncIterator[None]:
        with self._inventory.deaths.bell.listen() as rung:
            while not self._closed:
                await rung.wait()
                rung.clear()
                if not self._closed:
                    yield

    async def stop(self, handle: Handle, grace: float) -> None:
        container = await self._inventory.find(handle.value)
        if container is None or not self._inventory.runs(container):
            return
        process = machine.open_process(container.pid, container.id)
        if process is None:
            return
        try:
            await self._end(container, process, grace)
        finally:
            os.close(process)
        await _cleaned_up(container)

    async def _end(self, container: Container, process: int, grace: float) -> None:
        """Its process has ended afterwards. Raises BackendError where it does not."""
        await self._signal(container, process, container.stop_signal)
        if not await wait_for_end(process, grace):
            await self._signal(container, process, signal.SIGKILL)
            if not await wait_for_end(process, KILL_SECONDS):
                message = f"container {container.id[:12]} does not end although it was killed"
                raise BackendError("StopFailed", message, retryable=True)

    async def _signal(self, container: Container, process: int, number: int) -> None:
        """Straight to the process, so that it works without Podman; by Podman where that is not allowed."""
        try:
            signal.pidfd_send_signal(process, number)
        except ProcessLookupError:
            return
        except PermissionError:
            with contextlib.suppress(ApiError):
                await self._connection.call("POST", f"containers/{container.id}/kill", params={"signal": str(number)})

    async def remove(self, handle: Handle) -> None:
        container = await self._inventory.find(handle.value)
        if container is not None:
            if container.failed_early:
                self._images.suspect(container.digest)
            await self._delete(handle.value)
            reach("remove.cleared")
            self._secrets.remove(container.secret_folder)
            self._inventory.forget(handle.value)

    async def _delete(self, name: str) -> None:
        params = {"force": "true", "timeout": "0", "v": "true"}
        try:
            try:
                answer = await self._connection.call("DELETE", f"containers/{name}", params=params)
            except ApiError as error:
                if NOT_STOPPED not in error.message:
                    raise
                # Where its monitor is dead, Podman 5 learns from this that the container is.
                answer = await self._connection.call("DELETE", f"containers/{name}", params=params)
        except ApiError as error:
            if error.status == 404:
                return
            raise BackendError("RemoveFailed", f"podman cannot remove {name}: {error}", retryable=True) from error
        failures = [str(report["Err"]) for report in answer or () if report.get("Err")]
        if failures:
            raise BackendError("RemoveFailed", f"podman cannot remove {name}: {failures[0]}", retryable=True)

    async def logs(self, handle: Handle, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        container = await self._inventory.find(handle.value)
        if container is None:
            raise BackendError("NoSuchInstance", f"container {handle.value[:12]} does not exist", retryable=False)
        if container.damaged:
            return
        async with contextlib.aclosing(read_log(Path(container.log_path), query)) as lines:
            async for line in lines:
                yield line

    async def exec(self, handle: Handle, command: Sequence[str], timeout: float) -> ExecResult:
        return await self._commands.run(await self._running(handle), command, timeout)

    async def open_exec(self, handle: Handle, command: Sequence[str], terminal: TerminalSize | None) -> ExecSession:
        return await self._commands.open(await self._running(handle), command, terminal)

    async def _running(self, handle: Handle) -> Container:
        container = await self._inventory.find(handle.value)
        if container is None or not self._inventory.runs(container):
            raise not_running(handle.value)
        return container

    async def listens(self, handle: Handle, port: str) -> bool | None:
        container = await self._inventory.find(handle.value)
        if container is None or not self._inventory.runs(container):
            return False
        number = container.ports.get(port)
        return None if number is None else machine.listens(container.pid, number)

    async def stats(self, handle: Handle) -> Stats:
        container = await self._running(handle)
        found = machine.stats(container.pid, container.id, self._meter)
        if found is None:
            raise not_running(handle.value)
        return self._marks.completed(handle.value, found)

    async def prune(self, keep: frozenset[str]) -> None:
        await self._images.prune(keep)
        containers = await self._inventory.containers()
        await self._contents.prune(keep | {digest for container in containers for digest in container.volumes})
        self._secrets.keep_only({container.secret_folder for container in containers})
        self._marks.keep_only({container.id for container in containers})

    async def forget(self, deployment_id: str | None) -> None:
        await self._volumes.remove(deployment_id)

    async def close(self) -> None:
        self._closed = True
        self._inventory.deaths.bell.ring()
        self._inventory.deaths.close()
        await asyncio.to_thread(self._connection.close)


async def _cleaned_up(container: Container) -> None:
    """Returns once what has ended has no network any more, or keeps it for too long. Podman takes down by ports what
    another container at the same ports needs too, rules for them; its monitor does that in its own time, and ends."""
    monitor = machine.open_monitor(container.monitor_pid, container.id)
    if monitor is None:
        return
    try:
        if not await wait_for_end(monitor, CLEANUP_SECONDS):
            log.warning("container_not_cleaned_up", container=container.id, monitor=container.monitor_pid)
    finally:
        os.close(monitor)
