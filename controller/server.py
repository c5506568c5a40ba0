"""The controller process: everything assembled, started in order, stopped in reverse."""

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from controller.assembly import builder_pool
from controller.builds import targets
from controller.builds.archive_limits import GIB, ArchiveLimits
from controller.builds.contexts import Contexts
from controller.builds.holding import Hold
from controller.builds.joining import Joiner
from controller.builds.logs import BuildLogs
from controller.builds.materials_store import MaterialsStore
from controller.builds.model import RegistryAccess
from controller.builds.pushed import nobody
from controller.builds.queue import BuildQueue, Desk
from controller.builds.reuse import Reuse
from controller.builds.service import BuildService
from controller.builds.targets import load_profiles
from controller.builds.uploads import UploadStore
from controller.deployments.history import HistoryService
from controller.deployments.service import DeploymentService
from controller.devices.service import DeviceService
from controller.errors import OperatorError
from controller.events.feed import EventFeed
from controller.housekeeping.assembly import housekeeper, journal_of
from controller.housekeeping.space import MIB, Space
from controller.local.server import LocalServer
from controller.local.supervision import kept_running
from controller.mqtt.inbox import DeviceMessages
from controller.mqtt.link import BrokerSettings
from controller.pki import CertificateAuthority
from controller.rpc.build_parts import BuildParts
from controller.rpc.build_servicer import BuildServicer
from controller.rpc.deployment_servicer import DeploymentServicer
from controller.rpc.device_servicer import AgentServicer, DeviceServicer, EventServicer
from controller.rpc.interceptor import Gatekeeper
from controller.rpc.sessions import Sessions
from controller.rpc.volume_servicer import VolumeServicer
from controller.sealing import SecretBox
from controller.settings import Settings, load_settings, split
from controller.setup import DataFolder
from controller.spec import runtimes
from controller.store import open_store
from controller.volumes.gate import PushGate
from controller.volumes.service import VolumeService
from controller.web.registry_tokens import CONTROLLER, RegistryTokens
from controller.web.server import WebServer
from longshore.v1 import (
    agent_pb2_grpc,
    build_pb2_grpc,
    deployment_pb2_grpc,
    device_pb2_grpc,
    event_pb2_grpc,
    volume_pb2_grpc,
)

log = structlog.get_logger()
SERVICES = [
    f"longshore.v1.{name}Service" for name in ("Build", "Deployment", "Volume", "Device", "Event", "Agent")
]  # fmt: skip
OPTIONS = [
    # A herd of reconnecting agents must not be turned away.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    # Who is gone without a word is noticed while a call of theirs is open: else the log of a device that lost its
    # network would seem to go on, and a follower that vanished would hold a session of a device for hours.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 8 * 2**20),
    # So much of a stream is taken in before it is read: enough for 40 MB/s on a way of 100 ms. gRPC would widen it by
    # what it takes for the link's capacity, and on a busy machine hold hundreds of MB of one upload in memory.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 4 * 2**20),
]
STOP_GRACE = 2.0


class AlreadyRunning(OperatorError):
    """Another process serves this data folder."""


class CannotListen(OperatorError):
    """An address is taken or not ours."""


class Controller:
    """One controller on one data folder. `async with Controller(path)` serves until the block ends."""

    def __init__(self, root: Path, collect: Callable[[], Awaitable[None]] | None = None) -> None:
        """`collect` frees what nothing names any more in a registry of ours. Raises InvalidSettings, AlreadyRunning."""
        self.settings: Settings = load_settings(root)
        self._folder = DataFolder(root)
        self._lock = _lock(root)
        self._store = open_store(self._folder.database)
        self._ca = CertificateAuthority.load(self._folder.ca)
        self._tokens = RegistryTokens(self._folder.registry_tokens)
        runtimes.use_folder(self.settings.builds.runtimes_folder)
        targets.use_folder(self.settings.builds.targets_folder)
        self._profiles = profiles = dict(load_profiles())
        self._uploads = _uploads(root / "uploads", self.settings)
        self._logs = BuildLogs(root / "logs", self.settings.builds.log_max_mib * MIB)
        self._space = Space(_disks(root, self.settings), self.settings.min_free_mib * MIB)
        self._registry_access = access = self._registry()
        self._secrets = SecretBox(self._folder.secrets_key)
        self._materials = MaterialsStore(self._folder.materials)
        self._reuse = Reuse(self._store, access, self.settings.builds.reuse_hours)
        self._builds = BuildService(
            self._store, self._uploads, profiles, self._reuse, self._secrets, access.address, self._logs,
            self.settings.housekeeping.revisions_keep,
        )  # fmt: skip
        self._deployments = DeploymentService(self._store, self._builds, self._secrets)
        self._devices = DeviceService(
            self._store, self._ca, profiles, timedelta(days=self.settings.devices.certificate_days)
        )
        self._messages = DeviceMessages(self._store, self._broker_settings())
        self._sessions = Sessions(self._messages.invite)
        self._store.subscribe(self._sessions.heard)
        self._journal = journal_of(root)
        self._on_pushed = self._journal.note if self.settings.housekeeping.enabled else nobody
        self._gate = PushGate()
        self._volumes = VolumeService(
            self._store, self._uploads, access, root / "volumes", self._gate, self._on_pushed
        )  # fmt: skip
        self._pool = builder_pool(self.settings, self._folder, self._uploads, access, profiles, self._on_pushed)
        self._contexts = Contexts(self._pool.context, self._space.condition)
        self._queue = self._build_queue(access)
        self._keeper = housekeeper(
            root, self.settings.housekeeping, self._store, self._uploads, self._logs, access, self._journal,
            builders=self._pool, space=self._space, collect=self._gate.guarding(collect), pushes=self._gate,
        )  # fmt: skip
        self._feed = EventFeed(self._store)
        self._web = WebServer(self._tokens, self._pullable)
        self._servers: list[grpc.aio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Serves until cancelled. A part that breaks unexpectedly brings the process down: the service manager
        starts it again, and all that was acknowledged is there."""
        try:
            await self._start()
            await asyncio.gather(*self._tasks)
        finally:
            await asyncio.shield(self._stop())

    async def _start(self) -> None:
        certificate, key = self._folder.tls / "server.crt", self._folder.tls / "server.key"
        await self._listen(self.settings.public.listen, _server_credentials(certificate, key, None))
        ca_file = self._folder.ca / "ca.crt"
        await self._listen(self.settings.agents.listen, _server_credentials(certificate, key, ca_file))
        host, port = split(self.settings.web.listen)
        await self._web.start(host, port, certificate, key)
        parts = (("builds", self._queue.run()), ("builders", self._pool.watch()), ("devices", self._messages.run()))
        for name, work in parts:
            self._tasks.append(asyncio.create_task(work, name=name))
        if self.settings.housekeeping.enabled:
            self._tasks.append(asyncio.create_task(self._keeper.run(), name="housekeeping"))
        log.info("controller serves", public=self.settings.public.listen, agents=self.settings.agents.listen)

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(server.stop(STOP_GRACE) for server in self._servers))
        await self._web.stop()
        await self._pool.close()
        self._store.close()
        self._lock.close()

    async def _listen(self, address: str, credentials: grpc.ServerCredentials) -> None:
        server = grpc.aio.server(interceptors=[Gatekeeper(self._store)], options=OPTIONS)
        parts = BuildParts(
            self._builds, self._uploads, self._logs, self._profiles, self._pool, self._materials, self._contexts
        )
        build_pb2_grpc.add_BuildServiceServicer_to_server(BuildServicer(parts), server)
        deployment_pb2_grpc.add_DeploymentServiceServicer_to_server(
            DeploymentServicer(self._deployments, HistoryService(self._store, self._secrets), self._sessions),
            server,
        )
        device_pb2_grpc.add_DeviceServiceServicer_to_server(
            DeviceServicer(self._devices, self._ca, self.settings.public.address), server
        )
        volume_pb2_grpc.add_VolumeServiceServicer_to_server(VolumeServicer(self._volumes), server)
        event_pb2_grpc.add_EventServiceServicer_to_server(EventServicer(self._feed), server)
        agent_pb2_grpc.add_AgentServiceServicer_to_server(self._agent_servicer(), server)
        await _add_standard_services(server)
        try:
            server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise CannotListen(f"cannot listen on {address}: the port is taken, or the address is not ours") from error
        await server.start()
        self._servers.append(server)

    def _agent_servicer(self) -> AgentServicer:
        return AgentServicer(
            self._devices,
            self._store,
            self._tokens,
            self._sessions,
            self._ca,
            self._secrets,
            agent_address=self.settings.agents.address,
            broker_address=self.settings.broker.address,
        )

    def _broker_settings(self) -> BrokerSettings:
        host, port = split(self.settings.broker.address)
        ca_file = self.settings.broker.ca_file or self._folder.ca / "ca.crt"
        return BrokerSettings(
            host, port, ca_file, self._folder.tls / "controller.crt", self._folder.tls / "controller.key"
        )

    def _build_queue(self, access: RegistryAccess) -> BuildQueue:
        builds, retry = self.settings.builds, self.settings.builds.retry_hours * 3600
        desk = Desk(
            self._store, self._pool, self._logs, self._reuse, self._secrets, self._materials, self._profiles,
            access.address, retry,
        )  # fmt: skip
        joiner = Joiner(self._store, self._logs, access, retry, self._on_pushed)
        hold = Hold(self._store, self._space.condition)
        return BuildQueue(desk, joiner, self._pool.slots, builds.parallel_per_user, hold)

    def _registry(self) -> RegistryAccess:
        return RegistryAccess(
            self.settings.registry.address,
            self.settings.registry.ca_file or self._folder.ca / "ca.crt",
            self._push_credentials,
        )

    def _push_credentials(self) -> tuple[str, str]:
        credential = self._tokens.credential(CONTROLLER)
        return credential.username, credential.password

    async def _pullable(self, device_id: str) -> Collection[str]:
        repositories = await self._store.transact(lambda tx: tx.workloads.repositories_of(device_id))
        return {repository.partition("/")[2] for repository in repositories}


def _uploads(folder: Path, settings: Settings) -> UploadStore:
    archives = settings.archives
    limits = ArchiveLimits(int(archives.max_gib * GIB), archives.max_files, archives.max_ratio)
    return UploadStore(folder, settings.min_free_mib * MIB, archive_limits=limits)


def _disks(root: Path, settings: Settings) -> dict[str, Path]:
    """Where builds need room, by the name under which people know it."""
    folders = {"the controller's data": root, "the builder": root / "builder", "the registry": root / "registry"}
    bases = settings.builds.base_cache
    return folders if bases is None else {**folders, "bootstrapped bases": bases}


def _lock(root: Path) -> IO[str]:
    file = (root / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise AlreadyRunning(f"a controller (process {holder or '?'}) already serves {root}") from error
    # For people; the lock holds without it where the disk is full.
    with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    return file


def _server_credentials(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    pair = (key.read_bytes(), certificate.read_bytes())
    if client_ca is None:
        return grpc.ssl_server_credentials([pair])
    return grpc.ssl_server_credentials([pair], client_ca.read_bytes(), require_client_auth=True)


async def _add_standard_services(server: grpc.aio.Server) -> None:
    """Health and reflection, so that `grpcurl` and load balancers work without our protos."""
    servicer = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for service in ("", *SERVICES):
        await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server)


async def serve(
    root: Path, beside: Sequence[LocalServer] = (), collect: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Runs a controller, and what is to run beside it, until SIGTERM or SIGINT. `collect` as for Controller."""
    # First, for the lock: what another process has started here must not be touched.
    controller = Controller(root, collect)
    running = asyncio.create_task(_run(controller, beside))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def _run(controller: Controller, beside: Sequence[LocalServer]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for server in beside:
            await stack.enter_async_context(kept_running(server))
        await controller.run()
