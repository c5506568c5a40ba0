"""What the tests of an agent's links share: a broker, a controller and an observer, and an enrolled agent between."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from controller.local.broker import LocalBroker
from edge_agent.runtime.enrollment import EnrollmentRequest, enroll
from edge_agent.runtime.facts import device_facts
from edge_agent.runtime.identity import Identity
from longshore.topics import Topic
from longshore.v1 import agent_pb2, mqtt_pb2, types_pb2
from tests.support.agent_controller import AgentController, make_authority
from tests.support.broker_observer import BrokerObserver
from tests.support.fake_agent import DIGEST


@dataclass(frozen=True)
class Surroundings:
    """All that an agent talks to, and the identity with which it does."""

    broker: LocalBroker
    controller: AgentController
    observer: BrokerObserver
    identity: Identity
    state_dir: Path

    @property
    def device_id(self) -> str:
        return self.identity.device_id

    def wish(self, *workloads: agent_pb2.DesiredWorkload) -> int:
        """Makes a new generation and rings the bell; its number."""
        generation = self.controller.wish(self.device_id, workloads)
        self.observer.publish(self.device_id, Topic.DESIRED, mqtt_pb2.DesiredNotice(generation=generation))
        return generation

    def latest(self) -> mqtt_pb2.StatusSnapshot:
        """The snapshot that came last, an empty one before the first."""
        snapshots = self.observer.snapshots()
        return snapshots[-1] if snapshots else mqtt_pb2.StatusSnapshot()

    def runs_ready(self, generation: int) -> bool:
        """Whether the device says that it holds this generation and that all of it is ready."""
        latest = self.latest()
        ready = [instance.ready for instance in latest.instances]
        return latest.observed_generation == generation and bool(ready) and all(ready)

    def online(self) -> bool:
        presences = self.observer.presences()
        return bool(presences) and presences[-1].online


@asynccontextmanager
async def surroundings(folder: Path) -> AsyncIterator[Surroundings]:
    """A real broker, a real gRPC server, and a machine that has enrolled with it."""
    ca = make_authority(folder / "ca")
    state_dir = folder / "state"
    async with LocalBroker(folder / "broker", ca) as broker, AgentController(ca, broker) as controller:
        identity = await enroll(state_dir, EnrollmentRequest(controller.token(), device_facts("test"), name="crane-7"))
        with BrokerObserver(folder / "observer", ca, broker) as observer:
            yield Surroundings(broker, controller, observer, identity, state_dir)


def workload(deployment_id: str = "deployment-1", revision: int = 1) -> agent_pb2.DesiredWorkload:
    """One that the fake backend runs, and that is ready at once."""
    readiness = types_pb2.Check(command=types_pb2.CommandProbe(command=["true"]))
    return agent_pb2.DesiredWorkload(
        workload=types_pb2.Workload(
            deployment_id=deployment_id,
            project=types_pb2.Project(user_id="alice", project_id="cranes"),
            name="digits",
            revision=revision,
            artifact=types_pb2.Artifact(
                kind=types_pb2.ARTIFACT_KIND_IMAGE,
                repository="registry.example:5000/alice/digits",
                digest=DIGEST,
                platform="linux/amd64",
            ),
            spec=types_pb2.WorkloadSpec(readiness=readiness),
        )
    )
