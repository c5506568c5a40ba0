"""Keeps the board true: after each round, and whenever a check or a fetch has something to say."""

from collections.abc import Callable, Sequence

from edge_agent.runtime.backend import Observed, Progress
from edge_agent.runtime.board import Board
from edge_agent.runtime.case import Case
from edge_agent.runtime.clock import Clock
from edge_agent.runtime.convert import Broken
from edge_agent.runtime.lanes import Lanes
from edge_agent.runtime.memory import Memory
from edge_agent.runtime.model import Desired, Workload
from edge_agent.runtime.observer import Observer
from edge_agent.runtime.plan import Prepare, Step, by_deployment
from edge_agent.runtime.record import Record, Verdict
from edge_agent.runtime.status import (
    Doing,
    Setting,
    broken_status,
    given_up_status,
    leaving_status,
    stopped_status,
    unseen_status,
    wished_status,
)


class Reporter:
    """Derives the status of each deployment from what the parts of the agent know of it."""

    def __init__(
        self,
        host: str,
        memory: Memory,
        observer: Observer,
        lanes: Lanes,
        changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        self.host = host
        self.board = Board(memory.journal, changed, clock)
        self._memory = memory
        self._observer = observer
        self._lanes = lanes
        self._clock = clock
        self._progress: dict[tuple[str, int], Progress] = {}

    def report(self, desired: Desired, broken: Sequence[Broken]) -> None:
        """Brings every status up to date."""
        held = {entry.deployment_id for entry in broken}
        for entry in broken:
            if entry.deployment_id:
                self.board.apply(broken_status(entry))
        instances = by_deployment(self._observer.observed or ())
        wished = {wish.deployment_id for wish in desired.workloads}
        for wish in desired.workloads:
            if wish.deployment_id not in held:
                self._report(wish, wish.deployment_id in desired.stopped, instances.get(wish.deployment_id, ()))
        for key in (self.board.known() | self._memory.records.keys() | instances.keys()) - wished - held:
            self._leave(key, instances.get(key, ()))

    def report_one(self, wish: Workload, stopped: bool) -> None:
        """Brings one status up to date."""
        instances = by_deployment(self._observer.observed or ()).get(wish.deployment_id, ())
        self._report(wish, stopped, instances)

    def note_given_up(self, wish: Workload | None, before: Record, after: Record) -> None:
        """Tells of a revision's failure before another one takes its place."""
        if wish is None or after.fallback_for(wish.revision) is None:
            return
        verdicts = [record.course(wish.revision).verdict for record in (before, after)]
        if verdicts[1] is Verdict.FAILED and verdicts[0] is not Verdict.FAILED:
            self.board.apply(given_up_status(wish, after))

    def note_progress(self, workload: Workload, progress: Progress) -> None:
        self._progress[workload.key] = progress

    def forget_progress(self, step: Step) -> None:
        if isinstance(step, Prepare):
            self._progress.pop(step.workload.key, None)

    def _report(self, wish: Workload, stopped: bool, instances: tuple[Observed, ...]) -> None:
        key = wish.deployment_id
        if self._observer.observed is None:
            if self.board.shown(key) is None:
                self.board.apply(unseen_status(wish, self._observer.problem))
            return
        if self._observer.unsettled(key):
            return
        if stopped:
            self.board.apply(stopped_status(wish, instances))
            return
        case = Case(wish, instances, self._memory.get(key))
        doing = Doing(self._lanes.steps(key), self._progress.get(wish.key))
        status = wished_status(case, doing, Setting(self.host, self._observer.problem, self._clock().monotonic))
        if status is None:
            self.board.hold(key)
        else:
            self.board.apply(status)

    def _leave(self, key: str, instances: tuple[Observed, ...]) -> None:
        remembered = key in self._memory.records
        busy = self._observer.unsettled(key) or self._lanes.steps(key)
        if instances or remembered or busy or not self._observer.able:
            self.board.apply(leaving_status(key, instances, self.board.shown(key)))
        else:
            self.board.drop(key)
            self._memory.drop(key)
