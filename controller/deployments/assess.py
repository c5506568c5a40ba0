"""Keeps each deployment's state equal to its evidence; every change writes an event in the same transaction."""

import time
from dataclasses import replace

from controller.deployments.condition import condition
from controller.deployments.model import Deployment, DeploymentState, Wish
from controller.events.model import EventKind, NewEvent
from controller.store import Transaction


def reassess(tx: Transaction, deployment: Deployment) -> Deployment:
    """Stores the state that the evidence supports now; answers the deployment with it."""
    placements = tx.workloads.placements(deployment_id=deployment.id)
    if deployment.wish is Wish.RUN:
        # Stopped are those on devices that are drained: nothing is expected of them.
        placements = [place for place in placements if place.workload.wish is Wish.RUN]
    now = condition(deployment, tx.builds.get(deployment.build_id), placements)
    if now == deployment.condition:
        return deployment
    same_state = now.state is deployment.condition.state and now.reason == deployment.condition.reason
    changed = replace(deployment, condition=now, since=deployment.since if same_state else time.time())
    tx.deployments.change(changed)
    if not same_state:
        tx.events.append(state_event(changed))
    return changed


def reassess_all(tx: Transaction, deployment_ids: set[str]) -> None:
    """`reassess` for each of these that exists."""
    for deployment_id in sorted(deployment_ids):
        if (deployment := tx.deployments.get(deployment_id)) is not None:
            reassess(tx, deployment)


def state_event(deployment: Deployment) -> NewEvent:
    """The event that says in which state the deployment is."""
    return NewEvent(
        project=deployment.project,
        kind=EventKind.DEPLOYMENT,
        state=deployment.condition.state.value,
        build_id=deployment.build_id,
        deployment_id=deployment.id,
        revision=deployment.revision,
        ready=deployment.condition.state is DeploymentState.READY,
        reason=deployment.condition.reason,
        message=deployment.condition.message,
    )
