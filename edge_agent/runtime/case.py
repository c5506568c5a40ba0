"""One deployment as planning and reporting see it: the wish, what runs, and what is remembered."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.runtime.backend import Observed, Phase
from edge_agent.runtime.model import Workload
from edge_agent.runtime.record import Course, Record, Verdict
from edge_agent.runtime.updating import obstacle


@dataclass(frozen=True)
class Case:
    """`instances` are all that the backend lists for this deployment, newest first."""

    wish: Workload
    instances: tuple[Observed, ...]
    record: Record

    @property
    def other(self) -> Workload | None:
        """The revision that was ready before the wished one."""
        return self.record.fallback_for(self.wish.revision)

    @property
    def returned(self) -> bool:
        """The wished revision was given up for the one that was ready before."""
        return self.other is not None and self.course(self.wish).verdict is Verdict.FAILED

    @property
    def goal(self) -> Workload | None:
        """The revision that should run now; None while there is nothing that could.

        The wished one, once it is on the device; else the one that was ready before.
        """
        if self.returned:
            return self.other
        course = self.course(self.wish)
        if course.prepared or course.verdict is Verdict.COMPLETED or self.alive(self.wish):
            return self.wish
        # Whatever runs may go on until the wished revision is here.
        bridges = self.other is not None and (self.alive(self.other) or not self.running)
        return self.other if bridges else None

    def course(self, workload: Workload) -> Course:
        return self.record.course(workload.revision)

    def alive(self, workload: Workload) -> tuple[Observed, ...]:
        """Running instances of this revision that are to go on running, newest first."""
        settled = self.course(workload).settled
        return tuple(i for i in self.running if matches(i, workload) and i.handle != settled)

    def kept(self, workload: Workload) -> Observed | None:
        """The instance of another revision that goes on serving until this one is ready: start first, then stop."""
        for instance in self.running:
            old = self.workload_of(instance)
            if old is None or old == workload or self.course(old).verdict is Verdict.FAILED:
                continue
            if instance in self.alive(old) and not obstacle(workload, old):
                return instance
        return None

    def ended(self, workload: Workload) -> tuple[Observed, ...]:
        """Instances of this revision that do not run, newest first."""
        return tuple(i for i in self.leftovers if matches(i, workload))

    def unaccounted(self, workload: Workload) -> Observed | None:
        """The newest instance of this revision, where it ended by itself and nobody has taken note yet."""
        ended = self.ended(workload)
        if self.course(workload).verdict is not Verdict.OPEN:
            return None
        if not ended or ended[0].phase is not Phase.EXITED or ended[0].handle == self.course(workload).settled:
            return None
        return ended[0]

    @property
    def leftovers(self) -> tuple[Observed, ...]:
        """Instances that do not run, newest first."""
        return tuple(i for i in self.instances if i.phase is not Phase.RUNNING)

    @property
    def running(self) -> tuple[Observed, ...]:
        return tuple(i for i in self.instances if i.phase is Phase.RUNNING)

    def workload_of(self, observed: Observed) -> Workload | None:
        """What this instance is an instance of, where that is still known."""
        known = (self.wish, self.other, self.record.previous)
        return next((w for w in known if w is not None and matches(observed, w)), None)


def matches(observed: Observed, workload: Workload) -> bool:
    """Whether an instance is one of this revision. The digest guards against numbers that began anew."""
    return observed.revision == workload.revision and observed.artifact_digest == workload.artifact.digest


def newest_first(instances: Sequence[Observed]) -> tuple[Observed, ...]:
    return tuple(sorted(instances, key=lambda i: (i.started_at, i.handle.value), reverse=True))
