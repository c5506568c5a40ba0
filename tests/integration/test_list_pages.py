"""Pages of lists stay small enough for every client, and lose nothing."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.builds.model import BuildState
from controller.deployments.filters import DeploymentFilter
from controller.store import Store, Transaction, open_store
from controller.store.rows import PAGE_BYTES, Page
from tests.support.rows import PROJECT, build, deployment

LARGE = b"x" * 2**20


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(tmp_path / "controller.db")
    yield opened
    opened.close()


async def test_pages_of_large_specs_are_shorter_and_complete(store: Store) -> None:
    def read(tx: Transaction) -> tuple[list[list[int]], list[list[int]]]:
        for number in range(5):
            tx.builds.add(replace(build(BuildState.QUEUED), id=f"b-{number}", spec=LARGE, created=float(number)), "")
            tx.deployments.add(
                replace(deployment(), id=f"dep-{number}", name=f"n-{number}", spec=LARGE, created=float(number))
            )
        builds: list[list[int]] = []
        deployments: list[list[int]] = []
        token = ""
        while token or not builds:
            found, token = tx.builds.page(PROJECT, "", Page(100, token))
            builds.append([len(one.spec) for one in found])
        while token or not deployments:
            listed, token = tx.listing.deployments(DeploymentFilter(project=PROJECT), Page(100, token))
            deployments.append([len(one.deployment.spec) for one in listed])
        return builds, deployments

    for pages in await store.transact(read):
        assert sum(len(page) for page in pages) == 5
        assert all(sum(page) <= PAGE_BYTES for page in pages)


async def test_one_entry_that_is_too_large_is_shown_all_the_same(store: Store) -> None:
    huge = replace(build(BuildState.QUEUED), spec=b"x" * (PAGE_BYTES + 1))

    def read(tx: Transaction) -> int:
        tx.builds.add(huge, "")
        return len(tx.builds.page(PROJECT, "", Page())[0])

    assert await store.transact(read) == 1
