"""The whole agent: its links, its reconciler, and who tells whom of what."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from edge_agent.runtime.addresses import local_address_towards
from edge_agent.runtime.backend import BackendError, BackendFacts, DeployBackend
from edge_agent.runtime.broker_link import BrokerLink
from edge_agent.runtime.channels import Channels
from edge_agent.runtime.controller_link import ControllerError, ControllerLink
from edge_agent.runtime.convert import desired_from_pb
from edge_agent.runtime.database import AgentDatabase
from edge_agent.runtime.disk_watch import DiskWatch
from edge_agent.runtime.facts.keeper import FactsKeeper
from edge_agent.runtime.facts.use import AcceleratorUses
from edge_agent.runtime.fitting import described
from edge_agent.runtime.identity import Identity
from edge_agent.runtime.kept_logs import KeptLogs
from edge_agent.runtime.metrics import MetricsPublisher
from edge_agent.runtime.numbers import GrowingNumbers
from edge_agent.runtime.publisher import JournalPublisher, SnapshotPublisher
from edge_agent.runtime.reconciler import Reconciler
from edge_agent.runtime.renewal import Renewed, renew_when_due
from edge_agent.runtime.settings import AgentSettings
from edge_agent.runtime.sync import DesiredSync, SyncTimes
from edge_agent.runtime.threads import in_thread
from edge_agent.version import version
from longshore.v1 import agent_pb2, device_pb2, mqtt_pb2, types_pb2

log = structlog.get_logger()

# A name lookup may not hold up what runs with no network at all.
ADDRESS_TIMEOUT = 2.0
# What endpoints bear until the device has had a network for the first time.
NO_ADDRESS = "127.0.0.1"

# Gives the username and the password with which the registry's token endpoint knows this device.
RegistryCredential = Callable[[], Awaitable[tuple[str, str]]]
BackendFactory = Callable[[RegistryCredential], DeployBackend]


class Agent:
    """Connects the parts. Lives in one event loop; `run` is called once."""

    def __init__(
        self,
        settings: AgentSettings,
        identity: Identity,
        backend: DeployBackend,
        database: AgentDatabase,
        controller: ControllerLink,
        host: str,
    ) -> None:
        self._identity = identity
        self._controller = controller
        self._state_dir = settings.state_dir
        self._known_backend: BackendFacts | None = None
        self._host_is_set = bool(settings.advertise_host)
        self._address_doubtful = asyncio.Event()
        self._numbers = GrowingNumbers(settings.state_dir)
        kept_logs = KeptLogs(settings.state_dir / "previous-logs")
        self._reconciler = Reconciler(
            backend, database, host, self._changed, kept_logs=kept_logs, next_sequence=self._numbers.next
        )
        self._facts = FactsKeeper(version(), self._folders, self._changed)
        self._broker = BrokerLink(identity, self._numbers.next, self, settings.keepalive)
        self._snapshots = SnapshotPublisher(self._broker, self)
        self._journal = JournalPublisher(self._broker, database)
        self._metrics = MetricsPublisher(
            self._broker,
            backend,
            self._reconciler.statuses,
            self._reconciler.handle_of,
            self._reconciler.devices_of,
            AcceleratorUses(self._facts),
            settings.metrics_interval,
        )
        self._channels = Channels(controller, backend, self._reconciler.instances_of, kept_logs)
        times = SyncTimes(poll=settings.poll_interval, resync=settings.resync_interval)
        self._sync = DesiredSync(identity.device_id, controller, database, self._apply, times, self._broker.retry_soon)

    async def run(self) -> None:
        """For ever, or until one of its parts dies: then with that one's exception. What runs is not touched."""
        self._sync.apply_stored()
        parts = {
            "reconciler": self._reconciler.run(),
            "broker": self._broker.run(),
            "sync": self._sync.run(),
            "snapshots": self._snapshots.run(),
            "journal": self._journal.run(),
            "metrics": self._metrics.run(),
            "address": self._follow_address(),
            "renewal": renew_when_due(self._state_dir, self._identity, self._controller),
            "facts": self._facts.run(),
            "disk": DiskWatch(self._folders, self._reconciler.set_disk_problem).run(),
        }
        try:
            async with asyncio.TaskGroup() as group:
                for name, part in parts.items():
                    group.create_task(_endless(name, part), name=name)
        finally:
            await self._channels.close()

    # What the broker says.

    def broker_connected(self) -> None:
        self._sync.broker_connected()
        self._snapshots.broker_connected()
        self._journal.broker_connected()
        self._address_doubtful.set()

    def broker_lost(self) -> None:
        self._sync.broker_lost()

    def desired_noticed(self, notice: mqtt_pb2.DesiredNotice) -> None:
        self._sync.noticed(notice)

    def journal_acknowledged(self, ack: mqtt_pb2.JournalAck) -> None:
        self._journal.acknowledged(ack)

    def channel_invited(self, invitation: mqtt_pb2.ChannelInvitation) -> None:
        self._channels.invited(invitation)

    # What the snapshots tell.

    def statuses(self) -> Sequence[types_pb2.InstanceStatus]:
        return self._reconciler.statuses()

    def observed_generation(self) -> int:
        return self._reconciler.reported_generation

    def condition(self) -> str:
        return self._reconciler.condition

    def next_sequence(self) -> int:
        return self._numbers.next()

    def device_facts(self) -> device_pb2.DeviceFacts:
        told = device_pb2.DeviceFacts()
        told.CopyFrom(self._facts.facts)
        if known := self._known_backend:
            told.backend = f"{known.name} {known.version}".strip()
            told.capabilities.extend(described(known.capabilities))
        return told

    # What changes here.

    def _apply(self, desired: agent_pb2.DesiredState) -> None:
        self._reconciler.set_desired(*desired_from_pb(desired))
        self._changed()

    def _folders(self) -> list[Path]:
        """Those whose disks matter: of the agent's state, and of the artifacts."""
        store = self._known_backend.store if self._known_backend is not None else None
        return [self._state_dir, *([store] if store is not None else [])]

    def _changed(self) -> None:
        self._note_backend(self._reconciler.facts)
        # What happened goes out before what is true now, so that no event tells of the past.
        self._journal.changed()
        self._snapshots.changed()

    def _note_backend(self, told: BackendFacts | None) -> None:
        """One that does not answer stays what it was."""
        if told is not None and told != self._known_backend and (told.version or self._known_backend is None):
            self._known_backend = told
            self._facts.look_soon()

    async def _follow_address(self) -> None:
        """A device that is online again may have another address than before."""
        while True:
            await self._address_doubtful.wait()
            self._address_doubtful.clear()
            host = "" if self._host_is_set else await own_address(self._identity)
            if host:
                self._reconciler.set_host(host)


async def run_agent(
    settings: AgentSettings, identity: Identity, make_backend: BackendFactory, database: AgentDatabase
) -> bool:
    """Runs until SIGTERM or SIGINT; what it runs goes on without it. True where it ended to be run again at once, with
    the identity that is stored then.

    Raises what a part of it died of (an ExceptionGroup): the process is not to go on without that part.
    """
    renewed = False
    controller = ControllerLink(identity)

    async def credential() -> tuple[str, str]:
        try:
            found = await controller.registry_credential()
        except ControllerError as error:
            raise BackendError("NoRegistryCredential", str(error), retryable=True) from error
        return found.username, found.password

    backend = make_backend(credential)
    try:
        host = settings.advertise_host or await own_address(identity) or NO_ADDRESS
        agent = Agent(settings, identity, backend, database, controller, host)
        log.info("agent_started", device=identity.device_id, name=identity.device_name, host=host, version=version())
        try:
            await _until_stopped(agent.run())
        except* Renewed:
            renewed = True
        log.info("agent_stopped", device=identity.device_id)
    finally:
        await backend.close()
        await controller.close()
    return renewed


async def _until_stopped(work: Awaitable[None]) -> None:
    """Until a signal asks for the end, or the work fails; the work is over afterwards."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    running, stopping = asyncio.ensure_future(work), asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
    finally:
        stopping.cancel()
        running.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _endless(name: str, part: Awaitable[None]) -> None:
    await part
    raise RuntimeError(f"{name} has ended, which it never should")


async def own_address(identity: Identity) -> str:
    """The address of this device on its way to the controller; empty while there is no way."""
    try:
        async with asyncio.timeout(ADDRESS_TIMEOUT):
            return await in_thread(lambda: local_address_towards(identity.agent_address))
    except (OSError, TimeoutError) as error:
        log.warning("own_address_unknown", controller=identity.agent_address, error=str(error))
        return ""
