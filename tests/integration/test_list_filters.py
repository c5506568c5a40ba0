"""Lists of deployments and instances: what filters let through, pages that hold while rows change, few queries."""

import base64
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from controller.builds.model import BuildState
from controller.deployments.filters import DeploymentFilter, InstanceFilter, TimeRange
from controller.deployments.model import Condition, DeploymentState, Wish, WorkloadRow
from controller.devices.model import Device, Presence
from controller.errors import InvalidRequest
from controller.events.model import Project
from controller.rpc.lists import deployment_filter, deployment_to
from controller.store import Store, Transaction, open_store
from controller.store.listing import DeploymentView
from controller.store.rows import Page
from longshore.v1 import deployment_pb2, types_pb2
from tests.support.rows import ARTIFACT, build, deployment, instance, on, placement

ALICE, BOB = Project("alice", "digits"), Project("bob", "digits")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(tmp_path / "controller.db")
    await opened.transact(fill)
    yield opened
    opened.close()


def fill(tx: Transaction) -> None:
    """Of alice dep-0 to dep-5, of bob dep-6: even ones run on edge-0, odd ones wait on edge-1; dep-5 is deleted."""
    tx.devices.add(Device("dev-0", "edge-0", "x86-cpu", 1.0, labels={"site": "hall"}, presence=Presence.ONLINE))
    tx.devices.add(Device("dev-1", "edge-1", "arm64-cpu", 2.0, labels={"site": "yard"}, presence=Presence.ONLINE))
    for number in range(7):
        key, project = f"dep-{number}", BOB if number == 6 else ALICE
        made = build(BuildState.SUCCEEDED)
        targets = tuple(replace(target, profile="x86-cpu", artifact=ARTIFACT) for target in made.targets)
        tx.builds.add(replace(made, id=f"b-{number}", targets=targets), "")
        state = DeploymentState.DELETED if number == 5 else DeploymentState.READY
        state = DeploymentState.FAILED if number == 4 else state
        tx.deployments.add(
            replace(
                deployment(), id=key, name=key, project=project, build_id=f"b-{number}", created=10.0 * number,
                since=100.0 * number, condition=Condition(state, "Because", ""),
                wish=Wish.DELETE if number == 5 else Wish.RUN,
            )
        )  # fmt: skip
        tx.workloads.put(WorkloadRow(key, f"dev-{number % 2}", 1, Wish.RUN, ARTIFACT, b""))
        if number % 2 == 0:
            tx.workloads.put_instance(
                replace(instance(), deployment_id=key, device_id="dev-0", since=100.0 * number, status=told(number))
            )


def told(number: int) -> bytes:
    endpoint = types_pb2.Endpoint(name="http", host="192.0.2.7", port=8000 + number, scheme="http")
    status = types_pb2.InstanceStatus(restarts=number, endpoints=[endpoint], last_lines=[f"line {number}"])
    return status.SerializeToString()


async def names(store: Store, **wanted: Any) -> list[str]:
    found, _ = await store.transact(lambda tx: tx.listing.deployments(DeploymentFilter(**wanted), Page()))
    return [view.deployment.id for view in found]


async def placed(store: Store, **wanted: Any) -> list[str]:
    found, _ = await store.transact(lambda tx: tx.listing.instances(InstanceFilter(**wanted), Page()))
    return [place.workload.deployment_id for place in found]


async def test_filters_of_deployments(store: Store) -> None:
    assert await names(store) == ["dep-6", "dep-4", "dep-3", "dep-2", "dep-1", "dep-0"]
    assert await names(store, project=BOB) == await names(store, user_id="bob") == ["dep-6"]
    assert await names(store, user_id="alice", seen_by="bob") == await names(store, project=ALICE, seen_by="bob") == []
    assert await names(store, device="edge-1") == await names(store, device="dev-1") == ["dep-3", "dep-1"]
    assert await names(store, labels={"site": "yard"}) == ["dep-3", "dep-1"]
    assert await names(store, profile="x86-cpu", user_id="bob") == ["dep-6"]
    assert await names(store, profile="arm64-cpu") == []
    assert await names(store, states=("FAILED", "DELETED")) == ["dep-5", "dep-4"]
    assert "dep-5" in await names(store, include_deleted=True)
    assert await names(store, created=TimeRange(10.0, 30.0)) == ["dep-2", "dep-1"]
    assert await names(store, since=TimeRange(begin=400.0)) == ["dep-6", "dep-4"]


async def test_filters_of_instances(store: Store) -> None:
    assert await placed(store) == [f"dep-{number}" for number in range(7)]
    assert await placed(store, user_id="bob") == await placed(store, project=BOB) == ["dep-6"]
    assert await placed(store, device="edge-1") == ["dep-1", "dep-3", "dep-5"]
    assert await placed(store, profile="arm64-cpu") == await placed(store, labels={"site": "yard"})
    assert await placed(store, states=("PENDING",)) == ["dep-1", "dep-3", "dep-5"]
    assert await placed(store, states=("RUNNING",)) == ["dep-0", "dep-2", "dep-4", "dep-6"]
    assert await placed(store, since=TimeRange(end=300.0)) == ["dep-0", "dep-2"]
    assert await placed(store, deployment_id="dep-3", seen_by="bob") == []


async def test_a_deployment_tells_digests_endpoints_restarts_and_the_last_lines_of_a_failure(store: Store) -> None:
    found, _ = await store.transact(lambda tx: tx.listing.deployments(DeploymentFilter(), Page()))
    shown = {view.deployment.id: deployment_to(view) for view in found}
    assert shown["dep-4"].artifact_digests == [ARTIFACT.digest]
    assert [(one.device_name, one.endpoint.port) for one in shown["dep-4"].endpoints] == [("edge-0", 8004)]
    assert shown["dep-4"].restarts == 4
    assert list(shown["dep-4"].last_lines) == ["line 4"]
    assert list(shown["dep-2"].last_lines) == []
    assert not shown["dep-3"].endpoints


def test_more_restarts_than_the_contract_can_tell_do_not_break_the_list() -> None:
    status = types_pb2.InstanceStatus(restarts=2**31 - 1).SerializeToString()
    places = [on(name, placement(replace(instance(), status=status))) for name in ("dev-1", "dev-2")]
    assert deployment_to(DeploymentView(deployment(), (), tuple(places))).restarts == 2**31 - 1


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """The statements that run in the block, without those that begin and end a transaction."""
    said: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    event.listen(store._engine, "before_cursor_execute", hear)
    yield said
    event.remove(store._engine, "before_cursor_execute", hear)
    said[:] = [statement for statement in said if not statement.startswith("BEGIN")]


async def test_a_page_takes_so_many_queries_however_many_rows_it_has(store: Store) -> None:
    for size in (1, 100):
        with counted(store) as said:
            await store.transact(lambda tx, size=size: tx.listing.deployments(DeploymentFilter(), Page(size)))  # type: ignore[misc]
        assert len(said) == 3, said
        with counted(store) as said:
            await store.transact(lambda tx, size=size: tx.listing.instances(InstanceFilter(), Page(size)))  # type: ignore[misc]
        assert len(said) == 1, said


async def test_pages_show_each_deployment_once_while_deployments_come_and_change(store: Store) -> None:
    seen: list[str] = []
    token = ""
    for number in range(10, 20):
        page = Page(2, token)
        found, token = await store.transact(lambda tx, page=page: tx.listing.deployments(DeploymentFilter(), page))  # type: ignore[misc]
        seen += [view.deployment.id for view in found]
        if not token:
            break
        newer = replace(deployment(), id=f"dep-{number}", name=f"dep-{number}", created=10.0 * number)
        await store.transact(lambda tx, newer=newer: tx.deployments.add(newer))  # type: ignore[misc]
        shown = found[0].deployment
        await store.transact(lambda tx, shown=shown: tx.deployments.change(replace(shown, updated=999.0, since=999.0)))  # type: ignore[misc]
    assert seen == ["dep-6", "dep-4", "dep-3", "dep-2", "dep-1", "dep-0"]


async def test_pages_of_instances_are_complete(store: Store) -> None:
    seen, token = list[str](), ""
    while token or not seen:
        page = Page(2, token)
        found, token = await store.transact(lambda tx, page=page: tx.listing.instances(InstanceFilter(), page))  # type: ignore[misc]
        seen += [place.workload.deployment_id for place in found]
    assert seen == [f"dep-{number}" for number in range(7)]


async def test_a_page_token_is_good_for_its_own_filter_only(store: Store) -> None:
    _, token = await store.transact(lambda tx: tx.listing.deployments(DeploymentFilter(), Page(2)))
    lists: list[Callable[[Transaction], object]] = [
        lambda tx: tx.listing.deployments(DeploymentFilter(user_id="alice"), Page(2, token)),
        lambda tx: tx.listing.deployments(DeploymentFilter(seen_by="bob"), Page(2, token)),
        lambda tx: tx.listing.instances(InstanceFilter(), Page(2, token)),
        lambda tx: tx.builds.page(ALICE, "", Page(2, token)),
    ]
    for listed in lists:
        with pytest.raises(InvalidRequest, match=r"page\.token: it is of a list with another filter"):
            await store.transact(listed)
    half, huge, deep = '[1.0, "\\ud800"]', f'[{10**400}, "x"]', "[" * 100_000
    made = [base64.urlsafe_b64encode(text.encode()).decode() for text in (half, huge, deep)]
    for nonsense in ("x", "bm9uc2Vuc2U=", *made):
        with pytest.raises(InvalidRequest, match="not a token that this server made"):
            await store.transact(lambda tx, bad=nonsense: tx.builds.page(ALICE, "", Page(2, bad)))  # type: ignore[misc]
    for nonsense in ("x", "bm9uc2Vuc2U=", made[0], made[2]):
        with pytest.raises(InvalidRequest, match="not a token that this server made"):
            await store.transact(lambda tx, bad=nonsense: tx.listing.instances(InstanceFilter(), Page(2, bad)))  # type: ignore[misc]


def test_what_a_filter_cannot_be_is_refused_with_its_field() -> None:
    request = deployment_pb2.ListDeploymentsRequest
    backwards = deployment_pb2.TimeRange()
    backwards.begin.FromSeconds(20)
    backwards.end.FromSeconds(10)
    unknown: Any = [99]
    for refused, field in (
        (request(user_id="a b"), "user_id"),
        (request(states=unknown), "states"),
        (request(states=[deployment_pb2.DEPLOYMENT_STATE_UNSPECIFIED]), "states"),
        (request(since=backwards), r"since\.end"),
    ):
        with pytest.raises(InvalidRequest, match=f"^{field}: "):
            deployment_filter(refused, "")
