"""The agent dies at every place of its work where that matters, and afterwards all is as it is wished."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from edge_agent.runtime.fail_points import POINTS, VARIABLE
from longshore.v1 import deployment_pb2
from tests.support.site import PROJECT, Site, fetch, running_site, spec_text, status_of

pytestmark = [
    pytest.mark.podman,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("fail-points"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(tmp_path_factory.mktemp("points")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def steady(site: Site) -> deployment_pb2.Deployment:
    """Another service on the device, which nothing that happens here may disturb."""
    deployment = await site.deploy(spec_text("steady", ANSWER="steady"))
    await site.reaches(deployment, "READY")
    return deployment


async def dies(site: Site) -> None:
    assert site.agent is not None
    async with asyncio.timeout(60):
        code = await site.agent.wait()
    site.agent = None
    assert code != 0, "the agent was to be killed"


async def converges(site: Site, deployment: deployment_pb2.Deployment, answer: str) -> None:
    """The deployment is ready, from a single container that answers this."""
    end = time.monotonic() + 90
    while True:
        found = await site.reaches(deployment, "READY")
        if await fetch(found) == answer:
            break
        assert time.monotonic() < end, site.logs()
        await asyncio.sleep(0.1)
    label = f"label=dev.longshore.deployment={deployment.id}"
    while (running := await site.device.run("podman", "ps", "-q", "--filter", label)).count("\n") != 1:
        assert time.monotonic() < end, running
        await asyncio.sleep(0.1)


async def nothing_else_happened(site: Site, steady: deployment_pb2.Deployment) -> None:
    """The other service was not touched, and no event is missing."""
    assert status_of(await site.state(steady)).restarts == 0
    assert await fetch(await site.state(steady)) == "steady"
    numbers = [e.number for e in await site.call(lambda: list(site.client.watch_events(PROJECT)))]
    assert numbers == list(range(1, len(numbers) + 1))
    assert "journal has a gap" not in (site.folder / "controller" / "controller.log").read_text()


async def restart_with(site: Site, point: str) -> None:
    await site.stop_agent(kill=True)
    await site.start_agent({VARIABLE: point})


# Those that each run of the tests tries; the others are for `make faults`.
ALWAYS = ("prepare.fetched", "start.started", "stop.noted", "giveup.noted", "account.done", "journal.appended")


def points(*kinds: str) -> list[Any]:
    """The fail points of these kinds of work."""
    found = [point for point in POINTS if point.partition(".")[0] in kinds]
    return [pytest.param(point, marks=() if point in ALWAYS else pytest.mark.faults) for point in found]


@pytest.mark.parametrize("point", points("desired", "prepare", "start", "stop", "remove", "journal"))
async def test_agent_that_dies_in_an_update_finishes_it_afterwards(
    site: Site, steady: deployment_pb2.Deployment, point: str
) -> None:
    first = await site.deploy(spec_text("changing", ANSWER=f"before {point}"))
    await converges(site, first, f"before {point}")
    await restart_with(site, point)
    await site.deploy(spec_text("changing", ANSWER=f"after {point}"))
    await dies(site)
    await site.start_agent()
    await converges(site, first, f"after {point}")
    await nothing_else_happened(site, steady)


@pytest.mark.parametrize("point", points("giveup"))
async def test_agent_that_dies_while_an_update_is_given_up_returns_to_what_ran(
    site: Site, steady: deployment_pb2.Deployment, point: str
) -> None:
    first = await site.deploy(spec_text("failing", ANSWER="good"))
    await converges(site, first, "good")
    await restart_with(site, point)
    await site.deploy(spec_text("failing", deadline="2s", MODE="never-ready"))
    await dies(site)
    await site.start_agent()
    found = await site.reaches(first, "FAILED", "RolledBack")
    assert await fetch(found) == "good"
    await nothing_else_happened(site, steady)


@pytest.mark.parametrize("point", points("account"))
async def test_agent_that_dies_while_it_takes_note_of_a_death_starts_the_service_again(
    site: Site, steady: deployment_pb2.Deployment, point: str
) -> None:
    first = await site.deploy(spec_text("dying", ANSWER="alive"))
    await converges(site, first, "alive")
    await restart_with(site, point)
    await site.seen_device(lambda device: device.presence == 1)
    await site.device.run("pkill", "-KILL", "-f", "server.py", "-n")
    await dies(site)
    await site.start_agent()
    await converges(site, first, "alive")
    await site.delete(first)
    await nothing_else_happened(site, steady)


@pytest.mark.parametrize("point", points("forget"))
async def test_agent_that_dies_while_a_deployment_goes_leaves_nothing_of_it(
    site: Site, steady: deployment_pb2.Deployment, point: str
) -> None:
    first = await site.deploy(spec_text("leaving", ANSWER="here"))
    await converges(site, first, "here")
    await restart_with(site, point)
    await site.call(site.client.delete, first.id)
    await dies(site)
    await site.start_agent()
    await site.reaches(first, "DELETED")
    label = f"label=dev.longshore.deployment={first.id}"
    assert await site.device.run("podman", "ps", "-aq", "--filter", label) == ""
    await nothing_else_happened(site, steady)


@pytest.mark.faults
async def test_agent_that_dies_while_it_adopts_what_runs_adopts_it_the_next_time(
    site: Site, steady: deployment_pb2.Deployment
) -> None:
    before = await site.containers()
    await restart_with(site, "adopt.seen")
    await dies(site)
    await site.start_agent()
    await site.reaches(steady, "READY")
    assert await site.containers() == before
    await nothing_else_happened(site, steady)
