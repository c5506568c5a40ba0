"""Planning: from what is wished, observed and remembered to the next steps. Pure: no clock, disk or network.

For each deployment there is at most one step in each of two lanes: fetching goes on beside whatever is done to
instances. An empty plan is a fixed point until time passes (`due` says when) or something changes.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum

from edge_agent.runtime.backend import Observed, Phase
from edge_agent.runtime.case import Case, newest_first
from edge_agent.runtime.model import Desired, Workload
from edge_agent.runtime.record import STABLE_AFTER, Record, Verdict, is_lifeless

# For an instance whose workload is not known any more.
DEFAULT_GRACE = 10.0


class Lane(Enum):
    """Steps of one lane of one deployment never overlap."""

    FETCH = "fetch"
    RUN = "run"


@dataclass(frozen=True)
class Step:
    """One thing to do for one deployment."""

    deployment_id: str

    @property
    def lane(self) -> Lane:
        return Lane.RUN


@dataclass(frozen=True)
class Prepare(Step):
    """Bring everything that this revision needs onto the device."""

    workload: Workload

    @property
    def lane(self) -> Lane:
        return Lane.FETCH


@dataclass(frozen=True)
class Start(Step):
    """Start an instance; none of this deployment runs, but for one of another revision that serves meanwhile."""

    workload: Workload


@dataclass(frozen=True)
class Stop(Step):
    """Stop an instance because of what is wished; its end is no failure."""

    observed: Observed
    grace: float


@dataclass(frozen=True)
class GiveUp(Step):
    """Stop an instance that did not become ready in time, or is `lifeless`, and count that as a failure."""

    workload: Workload
    observed: Observed
    lifeless: bool = False


@dataclass(frozen=True)
class Account(Step):
    """Take note that an instance ended by itself, with its last lines."""

    workload: Workload
    observed: Observed


@dataclass(frozen=True)
class Remove(Step):
    """Leave nothing of an instance that does not run.

    The oldest goes first, so that what is kept, a log, always is of a newer one than what was kept before.
    """

    observed: Observed


@dataclass(frozen=True)
class Recover(Step):
    """Forget the failures of a revision that has been ready for long enough."""

    revision: int


@dataclass(frozen=True)
class Forget(Step):
    """Nothing of the deployment runs or is to run: how it fared is forgotten; where it is `gone` from what is wished,
    nothing is kept for it either."""

    gone: bool = False


def plan(
    desired: Desired,
    observed: Sequence[Observed],
    records: Mapping[str, Record],
    now: float,
    held: Set[str] = frozenset(),
) -> list[Step]:
    """What is to be done next, by `now` (monotonic). Deployments in `held` are left as they are."""
    instances = by_deployment(observed)
    steps: list[Step] = []
    for wish in desired.workloads:
        key = wish.deployment_id
        if key in held:
            continue
        mine = instances.get(key, ())
        if key in desired.stopped:
            # A record that says nothing stays, and is made where there is none: what is kept for the deployment goes
            # when its wish does.
            remembered = records.get(key) != Record(key)
            steps += _clear(key, mine, remembered, wish, gone=False)
        else:
            steps += _keep_running(Case(wish, mine, records.get(key) or Record(key)), now)
    wished = {wish.deployment_id for wish in desired.workloads}
    for key in sorted((instances.keys() | records.keys()) - wished - held):
        record = records.get(key)
        fallback = record.fallback if record else None
        steps += _clear(key, instances.get(key, ()), record is not None, fallback, gone=True)
    return steps


def due(desired: Desired, observed: Sequence[Observed], records: Mapping[str, Record], now: float) -> float | None:
    """The next instant after `now` at which `plan` may have more to do although nothing else changed."""
    instances = by_deployment(observed)
    moments: list[float] = []
    for wish in desired.workloads:
        record = records.get(wish.deployment_id)
        if record is not None and wish.deployment_id not in desired.stopped:
            moments += _moments(Case(wish, instances.get(wish.deployment_id, ()), record))
    return min((moment for moment in moments if moment > now), default=None)


def by_deployment(observed: Sequence[Observed]) -> dict[str, tuple[Observed, ...]]:
    """Instances of each deployment, newest first."""
    groups: dict[str, list[Observed]] = {}
    for instance in observed:
        groups.setdefault(instance.deployment_id, []).append(instance)
    return {key: newest_first(group) for key, group in groups.items()}


def _clear(
    key: str, instances: Sequence[Observed], remembered: bool, workload: Workload | None, *, gone: bool
) -> Iterator[Step]:
    """Stop and remove everything of a deployment that is not to run."""
    running = [i for i in instances if i.phase is Phase.RUNNING]
    if running:
        yield Stop(key, running[0], workload.stop_grace if workload else DEFAULT_GRACE)
    elif instances:
        yield Remove(key, instances[-1])
    elif remembered:
        yield Forget(key, gone)


def _keep_running(case: Case, now: float) -> Iterator[Step]:
    fetch = next((w for w in _to_fetch(case) if _may_try(case, w, now)), None)
    if fetch is not None:
        yield Prepare(case.wish.deployment_id, fetch)
    step = _run_step(case, now)
    if step is not None:
        yield step


def _run_step(case: Case, now: float) -> Step | None:
    goal = case.goal
    alive = case.alive(goal) if goal is not None else ()
    if goal is not None and alive:
        return _tend(case, goal, alive, now)
    if len(case.running) > 1:
        kept = (case.kept(goal) if goal is not None else None) or case.running[0]
        return _stop(case, next(i for i in reversed(case.running) if i.handle != kept.handle))
    return _bring_up(case, goal, now) if goal is not None else None


def _to_fetch(case: Case) -> Iterator[Workload]:
    """Revisions that are not on the device, the one that bridges a gap in service first."""
    for workload in (case.other if case.goal == case.other else None, case.wish):
        if workload is not None and not case.course(workload).prepared and not case.alive(workload):
            yield workload


def _may_try(case: Case, workload: Workload, now: float) -> bool:
    course = case.course(workload)
    return course.verdict is Verdict.OPEN and now >= course.next_try


def _tend(case: Case, goal: Workload, alive: Sequence[Observed], now: float) -> Step | None:
    """The goal runs: nothing else may but what serves until it is ready, and its readiness is awaited."""
    key = goal.deployment_id
    health = case.record.health_of(alive[0].handle)
    kept = case.kept(goal) if health is None or not health.ever_ready else None
    surplus = [i for i in case.running if i.handle != alive[0].handle and i != kept]
    if surplus:
        return _stop(case, surplus[0])
    if health is None:
        return None
    if is_lifeless(health, goal):
        return GiveUp(key, goal, alive[0], lifeless=True)
    if not health.ever_ready and now >= health.since + goal.readiness.deadline:
        return GiveUp(key, goal, alive[0])
    if not health.ready:
        return None
    if case.leftovers:
        return Remove(key, case.leftovers[-1])
    if case.course(goal).attempts and now >= health.ready_since + STABLE_AFTER:
        return Recover(key, goal.revision)
    return None


def _bring_up(case: Case, goal: Workload, now: float) -> Step | None:
    """The goal does not run: note why, make room for it, start it. What runs is stopped only just before."""
    key = goal.deployment_id
    dying = [i for i in case.running if i.handle == case.course(goal).settled]
    if dying:
        return _stop(case, dying[0])
    gone = case.unaccounted(goal)
    if gone is not None:
        return Account(key, goal, gone)
    completed = case.course(goal).verdict is Verdict.COMPLETED
    if not completed and (not case.course(goal).prepared or not _may_try(case, goal, now)):
        return None
    if case.running and (completed or case.kept(goal) is None):
        return _stop(case, case.running[0])
    if completed:
        return None
    return Remove(key, case.leftovers[-1]) if case.ended(goal) else Start(key, goal)


def _stop(case: Case, observed: Observed) -> Stop:
    workload = case.workload_of(observed)
    return Stop(case.wish.deployment_id, observed, workload.stop_grace if workload else DEFAULT_GRACE)


def _moments(case: Case) -> Iterator[float]:
    for workload in (case.wish, case.other):
        if workload is None:
            continue
        yield case.course(workload).next_try
        for instance in case.alive(workload)[:1]:
            health = case.record.health_of(instance.handle)
            if health is not None:
                yield health.since + workload.readiness.deadline
                yield health.ready_since + STABLE_AFTER
