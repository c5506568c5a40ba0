"""What brings an agent to each of its fail points, and what has to be true of the service afterwards."""

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from longshore.v1 import deployment_pb2
from tests.support.fault_site import FaultSite

_numbers = itertools.count(1)
# Of a service of which only one instance at a time can serve.
FIXED_PORT = {"host": 18080, "port": 18080}


@dataclass(frozen=True)
class Outcome:
    """What a service is afterwards: the deployment's state, and what it answers. Nothing runs without an answer."""

    answer: str
    state: str = "READY"
    reason: str = ""


Act = Callable[[FaultSite, deployment_pb2.Deployment], Awaitable[Outcome]]


@dataclass(frozen=True)
class Scenario:
    """`act` happens to a service that answers "before", and leads to all of `points`; "name:2" is the second time.
    With `fixed_port` only one instance at a time can serve."""

    name: str
    act: Act
    points: tuple[str, ...]
    fixed_port: bool = False

    def spec(self, site: FaultSite, **choices: str) -> str:
        return site.spec("subject", **(FIXED_PORT if self.fixed_port else {}), **choices)


async def _update(site: FaultSite, _: deployment_pb2.Deployment) -> Outcome:
    await site.deploy(site.spec("subject", ANSWER="after"))
    return Outcome("after")


async def _update_artifact(site: FaultSite, _: deployment_pb2.Deployment) -> Outcome:
    text = site.spec("subject", ANSWER="after").replace("build:\n", f"build:\n  workdir: /fresh-{next(_numbers)}\n")
    await site.deploy(text, await site.site.build(text))
    return Outcome("after")


async def _fail(site: FaultSite, _: deployment_pb2.Deployment) -> Outcome:
    await site.deploy(site.spec("subject", deadline="2s", MODE="never-ready"))
    return Outcome("before", "FAILED", "RolledBack")


async def _fail_alone(site: FaultSite, _: deployment_pb2.Deployment) -> Outcome:
    await site.deploy(site.spec("subject", **FIXED_PORT, deadline="2s", MODE="never-ready"))
    return Outcome("before", "FAILED", "RolledBack")


async def _die(site: FaultSite, deployment: deployment_pb2.Deployment) -> Outcome:
    await site.site.seen_device(lambda device: device.presence == 1)
    await site.kill_instance(deployment)
    return Outcome("before")


async def _leave(site: FaultSite, deployment: deployment_pb2.Deployment) -> Outcome:
    await site.site.call(site.site.client.delete, deployment.id)
    return Outcome("", "DELETED")


async def _nothing(_: FaultSite, __: deployment_pb2.Deployment) -> Outcome:
    return Outcome("before")


def _each(step: str) -> tuple[str, str]:
    return f"{step}.begin", f"{step}.done"


FETCH = ("fetch.begun", "fetch.arrived", "fetch.unpacked")
START = ("start.begin", "start.gathered", "start.described", "start.created", "start.started", "start.done")
UPDATE = (
    "desired.received", "desired.stored", "prepare.begin", "prepare.fetched", "prepare.done", *START,
    "stop.begin", "stop.noted", "stop.stopped", "stop.done", "remove.begin", "remove.cleared", "remove.done",
)  # fmt: skip
JOURNAL = tuple(f"journal.{what}" for what in ("append", "appended", "published", "acknowledged", "settled"))
SCENARIOS = (
    Scenario("update", _update, UPDATE),
    Scenario("fetch", _update_artifact, FETCH),
    Scenario("journal", _update, JOURNAL),
    Scenario("rollback", _fail, ("giveup.begin", "giveup.noted", "giveup.done")),
    # Here what ran before has to be started again.
    Scenario("return", _fail_alone, tuple(f"{point}:2" for point in START), fixed_port=True),
    Scenario("death", _die, _each("account")),
    Scenario("recovery", _die, _each("recover")),
    Scenario("leaving", _leave, ("forget.begin", "forget.cleared", "forget.done")),
    Scenario("adoption", _nothing, ("adopt.seen", "adopt.noted")),
)
# Each is tried with each backend.
CASES = [(scenario, point) for scenario in SCENARIOS for point in scenario.points]
