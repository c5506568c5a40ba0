"""The agent dies at every place of its work where that matters, and afterwards all is as it is wished."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from edge_agent.runtime.fail_points import VARIABLE
from longshore.v1 import deployment_pb2
from tests.support.fault_scenarios import CASES, Scenario
from tests.support.fault_site import KINDS, FaultSite, fault_site
from tests.support.site import fetch, status_of

pytestmark = [
    pytest.mark.podman,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("fail-points"),
]

# Those that each run of the tests tries; the others are for `make faults`.
ALWAYS = ("fetch.unpacked", "start.created:2", "stop.noted", "giveup.noted", "journal.appended")


def _parameter(scenario: Scenario, point: str) -> Any:
    marks = () if point in ALWAYS else pytest.mark.faults
    return pytest.param(scenario, point, marks=marks, id=f"{scenario.name}-{point}")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FaultSite]:
    async with fault_site(tmp_path_factory.mktemp("points"), request.param) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def steady(site: FaultSite) -> deployment_pb2.Deployment:
    """Another service on the device, which nothing that happens here may disturb."""
    deployment = await site.deploy(site.spec("steady", ANSWER="steady"))
    await site.converges(deployment, "steady")
    return deployment


async def dies(site: FaultSite) -> None:
    assert site.site.agent is not None
    async with asyncio.timeout(120):
        code = await site.site.agent.wait()
    site.site.agent = None
    assert code != 0, "the agent was to be killed"


@pytest.mark.parametrize(("scenario", "point"), [_parameter(*case) for case in CASES])
async def test_agent_that_dies_at_a_point_leaves_all_as_it_is_wished(
    site: FaultSite, steady: deployment_pb2.Deployment, scenario: Scenario, point: str
) -> None:
    subject = await site.deploy(scenario.spec(site, ANSWER="before"))
    await site.converges(subject, "before")
    await site.site.stop_agent(kill=True)
    await site.site.start_agent({VARIABLE: point})
    outcome = await scenario.act(site, subject)
    await dies(site)
    await site.site.start_agent()
    if outcome.answer:
        await site.converges(subject, outcome.answer, outcome.state, outcome.reason)
        await site.holds_only([subject.id, steady.id])
    else:
        await site.site.reaches(subject, outcome.state)
        await site.holds_only([steady.id])
    assert status_of(await site.site.state(steady)).restarts == 0
    assert await fetch(await site.site.state(steady)) == "steady"
    await site.journal_is_whole()


@pytest.mark.faults
async def test_agent_that_died_everywhere_leaves_nothing_that_belongs_to_nothing(
    site: FaultSite, steady: deployment_pb2.Deployment
) -> None:
    subject = await site.deploy(site.spec("subject", ANSWER="last"))
    await site.converges(subject, "last")
    await site.site.delete(subject)
    await site.holds_only([steady.id], tidied=True, seconds=120)
