"""Keeping what runs equal to what is wished: observe, plan, act, report; again and again."""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import structlog
from google.protobuf.message import DecodeError

from edge_agent.runtime.apply import Executor
from edge_agent.runtime.backend import BackendFacts, DeployBackend, Handle, Observed, Phase, Progress
from edge_agent.runtime.clock import Clock, system_clock
from edge_agent.runtime.convert import Broken, desired_from_pb
from edge_agent.runtime.database import AgentDatabase
from edge_agent.runtime.kept_logs import KeptLogs
from edge_agent.runtime.lanes import Lanes
from edge_agent.runtime.memory import Memory
from edge_agent.runtime.model import Desired, Workload
from edge_agent.runtime.observer import Observer
from edge_agent.runtime.plan import Account, Forget, Prepare, Recover, Start, Step, by_deployment, due, plan
from edge_agent.runtime.probers import Probers
from edge_agent.runtime.pruner import Pruner
from edge_agent.runtime.record import Record
from edge_agent.runtime.reporter import Reporter
from longshore.v1.agent_pb2 import DesiredState
from longshore.v1.types_pb2 import InstanceStatus

log = structlog.get_logger()

RESYNC = 60.0
PRUNE_INTERVAL = 600.0
PRUNE_AFTER_QUIET = 30.0
# What a fetch or a start that has just begun changes is told so much later, or before what came of it: where all is on
# the device a fetch is over by then, and no start waits until a disk and a broker have heard of it.
TELL_PAUSE = 0.02
# Progress of a fetch is reported at most so often.
PROGRESS_INTERVAL = 0.2


class Reconciler:
    """Runs what is wished through a backend, for as long as `run` runs; what it started runs on afterwards.

    `on_change` is called after anything in `statuses()`, `condition` or `facts` changed; it must return at once.
    `host` is the address that endpoints bear; `next_sequence` numbers what is told, as the snapshots are numbered.
    """

    def __init__(
        self,
        backend: DeployBackend,
        database: AgentDatabase,
        host: str,
        on_change: Callable[[], None],
        *,
        kept_logs: KeptLogs,
        clock: Clock = system_clock,
        jitter: Callable[[], float] = random.random,
        next_sequence: Callable[[], int] | None = None,
        resync: float = RESYNC,
        prune_interval: float = PRUNE_INTERVAL,
        prune_after_quiet: float = PRUNE_AFTER_QUIET,
    ) -> None:
        self._clock = clock
        self._wake = asyncio.Event()
        self._on_change = on_change
        self._desired: Desired | None = None
        self._broken: tuple[Broken, ...] = ()
        self._reported_generation = 0
        self._memory = Memory(database, clock, on_change, next_sequence or itertools.count(1).__next__)
        self._observer = Observer(backend, clock, resync, on_change, self._wake.set)
        self._kept_logs: KeptLogs | None = kept_logs
        executor = Executor(backend, self._commit, self._progress, clock, jitter, kept_logs)
        self._lanes = Lanes(executor.execute, self._step_done, self._observer.down, clock)
        self._probers = Probers(backend, self._memory, self._probed, clock)
        self._pruner = Pruner(backend, clock, prune_interval, prune_after_quiet, self._wake.set)
        self._reporter = Reporter(host, self._memory, self._observer, self._lanes, on_change, clock)
        self._progress_due: asyncio.TimerHandle | None = None
        self._tell_due: asyncio.TimerHandle | None = None
        self._disk_problem = ""

    # What others ask and tell.

    def set_desired(self, desired: Desired, broken: Sequence[Broken] = ()) -> None:
        """From now on this is wished. What is broken is reported and otherwise left as it is."""
        for entry in broken:
            log.error("workload_set_aside", deployment=entry.deployment_id, revision=entry.revision, why=entry.problem)
        self._desired, self._broken = desired, tuple(broken)
        self._wake.set()

    def wake(self) -> None:
        """Looks at once at what runs."""
        self._observer.look_soon()

    def set_host(self, host: str) -> None:
        """Endpoints bear this address from now on."""
        self._reporter.host = host
        self._wake.set()

    def set_disk_problem(self, problem: str) -> None:
        """A disk is nearly full, or (empty) not any more: then what nothing needs is removed at once."""
        self._disk_problem = problem
        self._pruner.hurry(bool(problem))
        self._on_change()
        self._wake.set()

    def statuses(self) -> list[InstanceStatus]:
        """One for each deployment that is wished for or on its way out."""
        return self._reporter.board.statuses()

    @property
    def reported_generation(self) -> int:
        """Of the newest desired state with which `statuses()` compare what runs; 0 before the first look."""
        return self._reported_generation

    @property
    def condition(self) -> str:
        """Empty when all is well; else what is lacking: "PodmanUnavailable: ..."."""
        facts = self._observer.facts
        able = self._observer.problem or (facts.problem if facts else "")
        return able or self._memory.problem or self._disk_problem

    @property
    def facts(self) -> BackendFacts | None:
        """None until the backend has answered for the first time."""
        return self._observer.facts

    def instances_of(self, deployment_id: str) -> Sequence[Observed]:
        """All instances, first the one of which a user speaks: the one that runs, else the last one that did."""
        instances = by_deployment(self._observer.observed or ()).get(deployment_id, ())
        return sorted(instances, key=lambda instance: instance.phase is not Phase.RUNNING)

    def handle_of(self, deployment_id: str) -> Handle | None:
        """The instance of which a user speaks."""
        return next((instance.handle for instance in self.instances_of(deployment_id)), None)

    def devices_of(self, deployment_id: str) -> Sequence[str]:
        """Those that its workload is given, as it is wished for."""
        wish = self._wish(deployment_id)
        return wish.devices if wish is not None else ()

    # The loop.

    async def run(self) -> None:
        """Reconciles until cancelled. Begins with the desired state that is stored, before any network."""
        self._memory.load(self._reporter.board.remember)
        self._load_desired()
        helpers = [
            asyncio.create_task(self._observer.keep_facts()),
            asyncio.create_task(self._observer.keep_watching()),
        ]
        try:
            while True:
                self._wake.clear()
                await self._observer.refresh()
                self._round()
                await self._rest(helpers)
        finally:
            await self._close(helpers)

    def _load_desired(self) -> None:
        stored = self._memory.desired()
        if stored is None or self._desired is not None:
            return
        try:
            self.set_desired(*desired_from_pb(DesiredState.FromString(stored)))
        except DecodeError:
            log.error("stored_desired_state_unreadable")

    def _round(self) -> None:
        begun = self._act(self._desired) if self._desired is not None and self._observer.able else ()
        passing = all(isinstance(step, Prepare | Start) for step in begun)
        if begun and passing and self._tell_due is None:
            self._tell_due = asyncio.get_running_loop().call_later(TELL_PAUSE, self._tell_now)
        if self._tell_due is None or not passing:
            self._tell()

    def _tell_now(self) -> None:
        self._tell_due = None
        self._wake.set()

    def _tell(self) -> None:
        """What is remembered is durable, and what is so is told."""
        if self._tell_due is not None:
            self._tell_due.cancel()
            self._tell_due = None
        self._memory.flush()
        desired = self._desired
        if desired is None:
            return
        self._reporter.report(desired, self._broken)
        if self._observer.observed is not None and self._reported_generation != desired.generation:
            self._reported_generation = desired.generation
            self._on_change()

    def _act(self, desired: Desired) -> Sequence[Step]:
        """The steps that were begun."""
        observed = self._observer.observed or ()
        held = frozenset(entry.deployment_id for entry in self._broken)
        self._tidy_logs(desired, observed)
        self._probers.follow(desired, observed)
        wanted = {w for w in desired.workloads if w.deployment_id not in desired.stopped}
        fallbacks = {r.fallback for r in self._memory.records.values()}
        self._lanes.cancel_fetches(lambda step: step.workload in wanted or step.workload in fallbacks)
        steps = plan(desired, observed, self._memory.records, self._clock().monotonic, held)
        begun = [step for step in steps if self._may_begin(step) and self._lanes.begin(step)]
        self._pruner.consider(not steps and self._lanes.idle, desired, observed, self._memory.records)
        return begun

    def _may_begin(self, step: Step) -> bool:
        return not self._observer.unsettled(step.deployment_id) and not self._waits_for_pruning(step)

    def _tidy_logs(self, desired: Desired, observed: Sequence[Observed]) -> None:
        """Once in a life: an agent that has lost its database is not told to forget what it does not remember."""
        kept_logs, self._kept_logs = self._kept_logs, None
        if kept_logs is not None:
            wished = {workload.deployment_id for workload in desired.workloads}
            kept_logs.keep_only(wished | {seen.deployment_id for seen in observed} | self._memory.records.keys())

    def _waits_for_pruning(self, step: Step) -> bool:
        return isinstance(step, Prepare) and self._pruner.might_take(step.workload.digests)

    async def _rest(self, helpers: Iterable[asyncio.Task[None]]) -> None:
        """Until something happens or is due."""
        for helper in helpers:
            if helper.done():
                helper.result()
        moments = [self._observer.next_look, *self._lanes.moments(), *self._pruner.moments()]
        now = self._clock().monotonic
        if self._desired is not None:
            next_step = due(self._desired, self._observer.observed or (), self._memory.records, now)
            moments += [next_step] if next_step is not None else []
        upcoming = [moment for moment in moments if moment > now]
        if self._observer.next_look <= now:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(min(upcoming) - now):
                await self._wake.wait()

    async def _close(self, helpers: Iterable[asyncio.Task[None]]) -> None:
        for timer in (self._progress_due, self._tell_due):
            if timer is not None:
                timer.cancel()
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        await self._probers.close()
        await self._lanes.close()
        await self._pruner.close()

    # What steps and checks bring about.

    def _commit(self, deployment_id: str, change: Callable[[Record], Record | None], *, durable: bool = True) -> None:
        if durable and self._tell_due is not None:
            # That something was begun, before what came of it.
            self._tell()
        before = self._memory.get(deployment_id)
        after = change(before)
        self._memory.put(deployment_id, after, durable=durable)
        if after is not None:
            self._reporter.note_given_up(self._wish(deployment_id), before, after)
        self._wake.set()

    def _wish(self, deployment_id: str) -> Workload | None:
        workloads = self._desired.workloads if self._desired else ()
        return next((w for w in workloads if w.deployment_id == deployment_id), None)

    def _step_done(self, step: Step) -> None:
        # The others change records only, and what is known of instances stays true.
        if not isinstance(step, Prepare | Account | Recover | Forget):
            self._observer.unsettle(step.deployment_id)
        self._reporter.forget_progress(step)
        self._pruner.disturb()
        self._wake.set()

    def _probed(self, deployment_id: str) -> None:
        """The checks of an instance say something new."""
        wish = self._wish(deployment_id)
        if wish is not None and self._desired is not None:
            self._reporter.report_one(wish, deployment_id in self._desired.stopped)
        self._wake.set()

    def _progress(self, workload: Workload, progress: Progress) -> None:
        self._reporter.note_progress(workload, progress)
        if self._progress_due is None:
            self._progress_due = asyncio.get_running_loop().call_later(PROGRESS_INTERVAL, self._report_progress)

    def _report_progress(self) -> None:
        self._progress_due = None
        self._wake.set()
