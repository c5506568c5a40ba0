"""Properties of planning: from any state, with any luck, the plan ends in what is wished and breaks no promise."""

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.runtime.backend import Handle, Observed, Phase
from edge_agent.runtime.case import Case, newest_first
from edge_agent.runtime.model import Check, Desired, RestartPolicy, TcpProbe, UpdateStrategy, Workload
from edge_agent.runtime.plan import (
    Account,
    Forget,
    GiveUp,
    Prepare,
    Recover,
    Remove,
    Start,
    Step,
    Stop,
    due,
    plan,
)
from edge_agent.runtime.record import (
    Course,
    Failure,
    Moment,
    Record,
    Stage,
    Verdict,
    checked,
    ended,
    failed,
    lifeless,
    lived,
    overdue,
    prepared,
    recovered,
    retired,
    started,
    watched,
)
from edge_agent.runtime.updating import obstacle
from tests.support.workloads import at, make_observed, make_workload

DEPLOYMENTS = ("d1", "d2")
REVISIONS = (1, 2, 3)
ROUNDS = 400


@dataclass
class World:
    """A device in memory: does what steps say, and lets instances fare as `luck` says for each revision."""

    desired: Desired
    observed: list[Observed]
    records: dict[str, Record]
    luck: dict[tuple[str, int], str]
    now: float = 100.0
    number: int = 1000
    stopped: list[tuple[str, Observed, Record, bool]] = field(default_factory=list)

    @property
    def moment(self) -> Moment:
        return at(self.now)

    def record(self, key: str) -> Record:
        return self.records.get(key) or Record(key)

    def luck_of(self, workload: Workload) -> str:
        return self.luck.get(workload.key, "good")

    def change(self, observed: Observed, phase: Phase, exit_code: int | None) -> None:
        position = self.observed.index(observed)
        self.observed[position] = replace(observed, phase=phase, exit_code=exit_code, finished_at=self.now)

    def act(self, step: Step) -> None:
        key = step.deployment_id
        record = self.record(key)
        match step:
            case Prepare(_, workload):
                self.records[key] = self._prepare(record, workload)
            case Start(_, workload):
                self._start(record, workload)
            case Stop(_, observed, _):
                alone = sum(i.phase is Phase.RUNNING for i in self.instances(key)) == 1
                self.stopped.append((key, observed, record, alone))
                self.records[key] = retired(record, observed.revision, observed.handle)
                self.change(observed, Phase.EXITED, 143)
            case GiveUp(_, workload, observed, dead):
                give_up = lifeless if dead else overdue
                self.records[key] = give_up(record, workload, observed.handle, (), self.moment, 0.5)
                self.change(observed, Phase.EXITED, 143)
            case Account(_, workload, observed):
                self.records[key] = ended(record, workload, observed, (), self.moment, 0.5)
            case Remove(_, observed):
                assert observed.phase is not Phase.RUNNING, "a running instance is stopped before it is removed"
                self.records[key] = record
                self.observed.remove(observed)
            case Recover(_, revision):
                self.records[key] = recovered(record, revision)
            case Forget(_, gone):
                self.records[key] = Record(key)
                if gone:
                    del self.records[key]
            case _:
                raise AssertionError(f"a step that nobody can do: {step}")

    def _prepare(self, record: Record, workload: Workload) -> Record:
        luck = self.luck_of(workload)
        if luck == "missing":
            return failed(record, workload, Failure(Stage.FETCH, "ImageNotFound", "", True), self.moment, 0.5)
        return prepared(record, workload)

    def _start(self, record: Record, workload: Workload) -> None:
        self._assert_room(workload)
        assert record.course(workload.revision).prepared, "never started before it is fetched"
        if self.luck_of(workload) == "refused":
            failure = Failure(Stage.START, "CommandNotFound", "", final=True)
            self.records[workload.deployment_id] = failed(record, workload, failure, self.moment, 0.5)
            return
        self.number += 1
        instance = make_observed(workload.revision, self.number, deployment_id=workload.deployment_id)
        self.observed.append(instance)
        self.records[workload.deployment_id] = started(record, workload, instance.handle, self.moment)

    def _assert_room(self, workload: Workload) -> None:
        """Nothing of the deployment runs, but for one instance of another revision that bears one beside it."""
        wish = next(w for w in self.desired.workloads if w.deployment_id == workload.deployment_id)
        case = Case(wish, self.instances(workload.deployment_id), self.record(workload.deployment_id))
        assert len(case.running) <= 1, "never more than two running instances of one deployment"
        for instance in case.running:
            old = case.workload_of(instance)
            assert old is not None, "what runs beside a new revision is known"
            assert old.revision != workload.revision, "never two running instances of one revision"
            assert obstacle(workload, old) == "", "never two revisions side by side that bear no other"

    def live(self) -> None:
        """Whatever runs fares as it must: checks are answered, some instances die."""
        for wish in self.desired.workloads:
            if wish.deployment_id in self.desired.stopped:
                continue
            case = Case(wish, self.instances(wish.deployment_id), self.record(wish.deployment_id))
            for workload in (case.wish, case.other):
                if workload is not None and (alive := case.alive(workload)):
                    self._live(workload, alive[0])

    def _live(self, workload: Workload, instance: Observed) -> None:
        key, luck = workload.deployment_id, self.luck_of(workload)
        if luck == "crashes":
            self.change(instance, Phase.EXITED, 1)
            return
        if self.record(key).health_of(instance.handle) is None:
            self.records[key] = watched(self.record(key), instance, self.moment)
        answers = luck != "hangs"
        record = checked(self.record(key), workload, instance.handle, answers, "", self.moment)
        if workload.liveness is not None and luck == "freezes":
            record = lived(record, instance.handle, False, "")
        self.records[key] = record

    def instances(self, key: str) -> tuple[Observed, ...]:
        return newest_first([i for i in self.observed if i.deployment_id == key])

    def plan(self) -> list[Step]:
        return plan(self.desired, tuple(self.observed), self.records, self.now)

    def round(self) -> list[Step]:
        steps = self.plan()
        for step in steps:
            self.act(step)
        return steps

    def pass_time(self) -> bool:
        """To the next instant at which there is something to do; False where nothing is due any more."""
        moment = due(self.desired, tuple(self.observed), self.records, self.now)
        if moment is None:
            return False
        self.now = moment
        return True


def workloads(deployment_id: str) -> st.SearchStrategy[Workload]:
    return st.builds(
        make_workload,
        st.sampled_from(REVISIONS),
        st.just(deployment_id),
        restart=st.sampled_from(RestartPolicy),
        update=st.sampled_from(UpdateStrategy),
        liveness=st.sampled_from([None, Check(TcpProbe("http"), failure_threshold=2)]),
    )


@st.composite
def desireds(draw: st.DrawFn) -> Desired:
    wishes = tuple(draw(workloads(key)) for key in DEPLOYMENTS if draw(st.booleans()))
    stopped = frozenset(w.deployment_id for w in wishes if draw(st.integers(0, 4)) == 0)
    return Desired(1, wishes, stopped)


@st.composite
def instances(draw: st.DrawFn) -> list[Observed]:
    found = []
    for number in range(draw(st.integers(0, 5))):
        phase = draw(st.sampled_from(Phase))
        instance = make_observed(draw(st.sampled_from(REVISIONS)), number, phase, draw(st.sampled_from(DEPLOYMENTS)))
        if phase is Phase.EXITED:
            instance = replace(instance, exit_code=draw(st.sampled_from([None, 0, 1, 137])))
        if draw(st.integers(0, 9)) == 0:
            instance = replace(instance, artifact_digest="sha256:stranger")
        found.append(instance)
    return found


@st.composite
def courses(draw: st.DrawFn, revision: int) -> Course:
    handles = st.one_of(st.none(), st.builds(lambda n: Handle(1, f"i{n}"), st.integers(0, 5)))
    return Course(
        revision,
        prepared=draw(st.booleans()),
        starts=draw(st.integers(0, 3)),
        attempts=draw(st.integers(0, 5)),
        next_try=draw(st.sampled_from([0.0, 99.0, 130.0])),
        failure=draw(st.sampled_from([None, Failure(Stage.RUN, "Exited", "")])),
        verdict=draw(st.sampled_from(Verdict)),
        settled=draw(handles),
        proven=draw(handles),
    )


@st.composite
def records(draw: st.DrawFn) -> dict[str, Record]:
    found = {}
    for key in DEPLOYMENTS:
        if draw(st.booleans()):
            known = tuple(draw(courses(revision)) for revision in REVISIONS if draw(st.booleans()))
            found[key] = Record(key, known, draw(st.one_of(st.none(), workloads(key))))
    return found


def lucks() -> st.SearchStrategy[dict[tuple[str, int], str]]:
    keys = st.tuples(st.sampled_from(DEPLOYMENTS), st.sampled_from(REVISIONS))
    return st.dictionaries(keys, st.sampled_from(["good", "crashes", "hangs", "freezes", "missing", "refused"]))


def worlds(
    luck: st.SearchStrategy[dict[tuple[str, int], str]],
) -> st.SearchStrategy[World]:
    return st.builds(World, desireds(), instances(), records(), luck)


def settle(world: World) -> int:
    """Rounds until nothing is to be done and nothing is due; the plan must end of itself."""
    for count in range(ROUNDS):
        world.live()
        if not world.round() and not world.pass_time():
            return count
    raise AssertionError(f"no end after {ROUNDS} rounds")


@settings(max_examples=100, deadline=None)
@given(worlds(st.just({})))
def test_from_any_state_the_plan_ends_in_a_fixed_point_with_what_is_wished(world: World) -> None:
    settle(world)
    assert world.plan() == []
    wished = {w.deployment_id: w for w in world.desired.workloads if w.deployment_id not in world.desired.stopped}
    for key in DEPLOYMENTS:
        running = [i for i in world.observed if i.deployment_id == key and i.phase is Phase.RUNNING]
        if key not in wished:
            assert not [i for i in world.observed if i.deployment_id == key]
            assert world.record(key) == Record(key)
            assert key not in world.records or key in world.desired.stopped
            continue
        assert len(running) <= 1
        verdict = world.record(key).course(wished[key].revision).verdict
        assert [i.revision for i in running] == [wished[key].revision] or verdict is not Verdict.OPEN


@settings(max_examples=100, deadline=None)
@given(worlds(lucks()), st.data())
def test_no_promise_is_broken_whatever_happens(world: World, data: st.DataObject) -> None:
    # `World.act` asserts the promises about starting and removing while it goes.
    for _ in range(60):
        if data.draw(st.integers(0, 9)) == 0:
            world.desired = data.draw(desireds())
        world.live()
        before = {i.handle for i in world.observed}
        for step in world.round():
            touched = getattr(step, "observed", None)
            assert touched is None or touched.handle in before, "only what is listed is ever touched"
        world.pass_time()


@settings(max_examples=100, deadline=None)
@given(worlds(lucks()))
def test_nothing_is_stopped_for_an_update_before_the_new_revision_is_here(world: World) -> None:
    wished = {w.deployment_id: w for w in world.desired.workloads if w.deployment_id not in world.desired.stopped}
    for _ in range(60):
        world.live()
        world.round()
        world.pass_time()
    for key, observed, record, alone in world.stopped:
        if key in wished and alone and record.course(observed.revision).settled != observed.handle:
            course = record.course(wished[key].revision)
            other = record.fallback_for(course.revision)
            returns = course.verdict is Verdict.FAILED and other is not None
            ran = course.prepared or course.verdict is Verdict.COMPLETED
            assert ran or (returns and other is not None and record.course(other.revision).prepared)


@settings(max_examples=50, deadline=None)
@given(worlds(lucks()))
def test_planning_is_a_pure_function(world: World) -> None:
    assert world.plan() == world.plan()
    desired, observed, records_before = world.desired, list(world.observed), dict(world.records)
    world.plan()
    assert (world.desired, world.observed, world.records) == (desired, observed, records_before)


@settings(max_examples=100, deadline=None)
@given(worlds(lucks()))
def test_steps_of_one_lane_of_one_deployment_never_come_in_pairs(world: World) -> None:
    for _ in range(30):
        world.live()
        lanes = [(step.deployment_id, step.lane) for step in world.round()]
        assert len(lanes) == len(set(lanes))
        world.pass_time()
