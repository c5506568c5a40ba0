"""How long a page of a list takes with a thousand projects of ten deployments each: over the API, real SQLite.

Each deployment has a build and an instance that runs on one of a hundred devices. Measured is the call as a client
makes it, with TLS, for the pages from the first to the last; a page has 100 entries.
"""

import asyncio
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import yaml

from controller.builds.model import BuildState
from controller.deployments.model import Condition, DeploymentState, Wish, WorkloadRow
from controller.devices.model import Device, Presence
from controller.events.model import Project
from controller.local.stack import LocalStack
from controller.store import Transaction, open_store
from longshore.calls import open_channel
from longshore.v1 import deployment_pb2, deployment_pb2_grpc, types_pb2
from tests.support.rows import ARTIFACT, build, deployment, instance
from tests.support.site import spec_text

PROJECTS, EACH, DEVICES, PAGE = 1000, 10, 100, 100


def main() -> str:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measured(Path(folder)))


async def _measured(folder: Path) -> str:
    stack = LocalStack(folder)
    store = open_store(stack.folder.database)
    await store.transact(_fill)
    store.close()
    async with stack:
        context = yaml.safe_load(stack.context_file.read_text())
        with open_channel(context["address"], context["token"], context["ca"]) as channel:
            return await asyncio.to_thread(_figures, channel)


def _figures(channel: grpc.Channel) -> str:
    # The types of the generated stubs are those of asyncio.
    kind: Any = deployment_pb2_grpc.DeploymentServiceStub
    stub = kind(channel)
    all_pages = _pages(stub.ListDeployments, deployment_pb2.ListDeploymentsRequest)
    instances = _pages(stub.ListInstances, deployment_pb2.ListInstancesRequest)
    of_project = [
        _timed(stub.ListDeployments, deployment_pb2.ListDeploymentsRequest(project=_owner(number)))[0]
        for number in range(0, PROJECTS, 10)
    ]
    figures = (("page", all_pages), ("instances_page", instances), ("project", of_project))
    told = (f"{name}_ms={statistics.median(ms):.1f} {name}_max_ms={max(ms):.1f}" for name, ms in figures)
    return f"list_pages deployments={PROJECTS * EACH} pages={len(all_pages)} {' '.join(told)}"


def _pages(call: Any, kind: Any) -> list[float]:
    """Milliseconds of each page of all that there is."""
    found, token = list[float](), ""
    while token or not found:
        took, token = _timed(call, kind(page=types_pb2.PageRequest(size=PAGE, token=token)))
        found.append(took)
    return found


def _timed(call: Any, request: Any) -> tuple[float, str]:
    begin = time.perf_counter()
    answer = call(request)
    return (time.perf_counter() - begin) * 1000, answer.next_page_token


def _owner(number: int) -> types_pb2.Project:
    return types_pb2.Project(user_id=f"user-{number % 100}", project_id=f"project-{number}")


def _fill(tx: Transaction) -> None:
    for number in range(DEVICES):
        tx.devices.add(Device(f"dev-{number:03}", f"edge-{number}", "x86-cpu", float(number), presence=Presence.ONLINE))
    for number in range(PROJECTS * EACH):
        _add(tx, number)


def _add(tx: Transaction, number: int) -> None:
    key, owner = f"dep-{number:05}", _owner(number // EACH)
    made = build(BuildState.SUCCEEDED)
    targets = tuple(replace(target, artifact=ARTIFACT) for target in made.targets)
    project = Project(owner.user_id, owner.project_id)
    tx.builds.add(
        replace(made, id=f"b-{number}", user_id=owner.user_id, project_id=owner.project_id, targets=targets), ""
    )
    ready = Condition(DeploymentState.READY, "Ready", "1 of 1 instances ready")
    tx.deployments.add(
        replace(
            deployment(), id=key, name=key, project=project, build_id=f"b-{number}", created=float(number + 1),
            condition=ready, spec=spec_text(key).encode(),
        )
    )  # fmt: skip
    device = f"dev-{number % DEVICES:03}"
    tx.workloads.put(WorkloadRow(key, device, 1, Wish.RUN, ARTIFACT, b""))
    endpoint = types_pb2.Endpoint(name="http", host="192.0.2.7", port=8000, scheme="http")
    status = types_pb2.InstanceStatus(
        deployment_id=key, revision=1, state=types_pb2.INSTANCE_STATE_RUNNING, ready=True, reason="Ready",
        artifact_digest=ARTIFACT.digest, endpoints=[endpoint],
    )  # fmt: skip
    tx.workloads.put_instance(
        replace(instance(), deployment_id=key, device_id=device, status=status.SerializeToString())
    )
