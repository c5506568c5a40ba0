"""Pages of deployments and of instances: so many queries for a page, however many entries it has."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, func, or_, select

from controller.builds.model import BuildTarget
from controller.deployments.filters import DeploymentFilter, InstanceFilter, Owned, TimeRange
from controller.deployments.model import Deployment, DeploymentState
from controller.store import schema
from controller.store.builds import target_from_row
from controller.store.deployments import DeploymentTable
from controller.store.rows import Page, page_token, paged, position_token, that_fit
from controller.store.workloads import Placement, WorkloadTable

DEPLOYMENTS = schema.deployments
WORKLOADS = schema.workloads
INSTANCES = schema.instances
DEVICES = schema.devices
TARGETS = schema.build_targets
# What a deployment says in a list besides its spec: endpoints and last lines.
SAID_BYTES = 8 * 1024


@dataclass(frozen=True)
class DeploymentView:
    """A deployment with what it is built for and where it runs."""

    deployment: Deployment
    targets: tuple[BuildTarget, ...]
    placements: tuple[Placement, ...]


class ListingTable:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def deployments(self, wanted: DeploymentFilter, page: Page) -> tuple[list[DeploymentView], str]:
        """Newest first, and the token of the next page. Raises InvalidRequest for the token of another list."""
        query = paged(select(DEPLOYMENTS), DEPLOYMENTS, page, scope=wanted.scope)
        found = DeploymentTable(self._connection).found_by(query.where(*_deployment_conditions(wanted)))
        shown = that_fit(found[: page.limit], lambda deployment: len(deployment.spec) + SAID_BYTES)
        more = len(found) > len(shown)
        token = page_token(shown[-1].created, shown[-1].id, wanted.scope) if more else ""
        return self.views(shown), token

    def views(self, deployments: Sequence[Deployment]) -> list[DeploymentView]:
        """These deployments with all that is told of them; the same number of queries for one as for many."""
        if not deployments:
            return []
        ids = [deployment.id for deployment in deployments]
        placements: dict[str, list[Placement]] = defaultdict(list)
        for place in WorkloadTable(self._connection).selected([WORKLOADS.c.deployment_id.in_(ids)]):
            placements[place.workload.deployment_id].append(place)
        targets = self._targets({deployment.build_id for deployment in deployments})
        return [DeploymentView(one, tuple(targets[one.build_id]), tuple(placements[one.id])) for one in deployments]

    def instances(self, wanted: InstanceFilter, page: Page) -> tuple[list[Placement], str]:
        """Ordered by deployment and device, and the token of the next page. Raises InvalidRequest as above."""
        conditions = _instance_conditions(wanted)
        if (after := page.pair(wanted.scope)) is not None:
            later = WORKLOADS.c.deployment_id > after[0]
            conditions.append(or_(later, and_(WORKLOADS.c.deployment_id == after[0], WORKLOADS.c.device_id > after[1])))
        found = WorkloadTable(self._connection).selected(conditions, page.limit + 1)
        shown = that_fit(found[: page.limit], _told_bytes)
        last = shown[-1].workload if len(found) > len(shown) else None
        return shown, position_token(last.deployment_id, last.device_id, wanted.scope) if last else ""

    def _targets(self, build_ids: set[str]) -> dict[str, list[BuildTarget]]:
        query = select(TARGETS).where(TARGETS.c.build_id.in_(build_ids)).order_by(TARGETS.c.position)
        targets: dict[str, list[BuildTarget]] = defaultdict(list)
        for row in self._connection.execute(query).mappings():
            targets[row["build_id"]].append(target_from_row(row))
        return targets


def _told_bytes(place: Placement) -> int:
    told = place.instance.status if place.instance is not None else b""
    return len(told) + len(place.workload.workload_spec)


def _deployment_conditions(wanted: DeploymentFilter) -> list[Any]:
    found = [*_owner(wanted), *_within(DEPLOYMENTS.c.since, wanted.since)]
    found += _within(DEPLOYMENTS.c.created, wanted.created)
    if wanted.states:
        found.append(DEPLOYMENTS.c.state.in_(wanted.states))
    elif not wanted.include_deleted:
        found.append(DEPLOYMENTS.c.state != DeploymentState.DELETED)
    if wanted.profile:
        found.append(exists().where(TARGETS.c.build_id == DEPLOYMENTS.c.build_id, TARGETS.c.profile == wanted.profile))
    if on_device := _device(wanted.device, wanted):
        placed: Select[Any] = select(WORKLOADS.c.deployment_id).join(DEVICES, DEVICES.c.id == WORKLOADS.c.device_id)
        found.append(placed.where(WORKLOADS.c.deployment_id == DEPLOYMENTS.c.id, *on_device).exists())
    return found


def _instance_conditions(wanted: InstanceFilter) -> list[Any]:
    since = func.coalesce(INSTANCES.c.since, WORKLOADS.c.since)
    found = [*_owner(wanted), *_device(wanted.device, wanted), *_within(since, wanted.since)]
    if wanted.profile:
        found.append(DEVICES.c.profile == wanted.profile)
    if wanted.deployment_id:
        found.append(WORKLOADS.c.deployment_id == wanted.deployment_id)
    if wanted.states:
        # One of which the device has said nothing is shown as PENDING.
        found.append(func.coalesce(INSTANCES.c.state, "PENDING").in_(wanted.states))
    return found


def _owner(wanted: Owned) -> list[Any]:
    users = [user for user in (wanted.user_id, wanted.seen_by) if user]
    found: list[Any] = [DEPLOYMENTS.c.user_id == user for user in users]
    if wanted.project is not None:
        found.append(DEPLOYMENTS.c.user_id == wanted.project.user_id)
        found.append(DEPLOYMENTS.c.project_id == wanted.project.project_id)
    return found


def _device(id_or_name: str, wanted: Owned) -> list[Any]:
    found: list[Any] = [DEVICES.c.labels[key].as_string() == value for key, value in wanted.labels.items()]
    if id_or_name:
        found.append(or_(DEVICES.c.id == id_or_name, DEVICES.c.name == id_or_name))
    return found


def _within(column: Any, limits: TimeRange) -> list[Any]:
    begin = [column >= limits.begin] if limits.begin else []
    return [*begin, *([column < limits.end] if limits.end else [])]
