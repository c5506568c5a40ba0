"""Fixtures of the Podman tests: one device and registry for a module, one agent for a test."""

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from edge_agent.runtime.model import Artifact
from tests.support.podman_machine import PodmanMachine, PodmanSite, podman_site

OWNERS = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PodmanSite]:
    async with podman_site(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def image(site: PodmanSite) -> Artifact:
    return await site.image()


@pytest_asyncio.fixture(loop_scope="module")
async def machine(site: PodmanSite) -> AsyncIterator[PodmanMachine]:
    async with PodmanMachine(site, f"agent-{next(OWNERS)}") as made:
        yield made
