"""What the contract over real Podman on a simulated device needs, besides a `site`."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.contract.scripted_machine import POLITE, Artifacts, ScriptedMachine
from tests.support.podman_machine import PodmanMachine, PodmanSite


class ContractMachine(ScriptedMachine[PodmanSite], PodmanMachine):
    """A `Machine` with real parts."""

    inner_port = 8080
    serving = f"httpd -p 8080 -h /tmp; {POLITE}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def images(site: PodmanSite) -> Artifacts:
    return Artifacts(await site.image(), await site.image(architecture="s390x"))


@pytest_asyncio.fixture(loop_scope="module")
async def machine(site: PodmanSite, images: Artifacts) -> AsyncIterator[ContractMachine]:
    async with ContractMachine(site, f"owner-{next(site.numbers)}", images) as made:
        yield made
