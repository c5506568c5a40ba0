"""What users do with deployments. Every call is one transaction: acknowledged means durable."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from controller.access import new_id
from controller.builds.model import Build, ContextFile
from controller.builds.service import Accepted, BuildRequest, BuildService, require_deployable
from controller.deployments.assess import reassess, state_event
from controller.deployments.filters import DeploymentFilter, InstanceFilter
from controller.deployments.model import Condition, Deployment, DeploymentState, Wish
from controller.deployments.placing import place, withdraw
from controller.deployments.secrets import check_secrets, sealed_values
from controller.deployments.volumes import pinned_volumes
from controller.devices.service import check_labels
from controller.errors import InvalidRequest, NotFound
from controller.events.model import Project
from controller.sealing import SecretBox
from controller.spec.model import Spec
from controller.store import Store, Transaction
from controller.store.listing import DeploymentView
from controller.store.rows import Page
from controller.store.workloads import Placement
from longshore.errors import Reason

ACCEPTED = Condition(DeploymentState.PENDING, "Accepted", "")


@dataclass(frozen=True)
class Applied:
    """A deployment and the project's last event before the call's own."""

    deployment: Deployment
    events_from: int


@dataclass(frozen=True)
class Request:
    """What ApplyDeployment asks for. `secrets`: values of `deploy.secrets`; `build_secrets`: of `build.secrets`.
    `knows_all` as of `BuildRequest`."""

    project: Project
    spec: bytes
    files: tuple[ContextFile, ...] = ()
    build_id: str = ""
    request_id: str = ""
    knows_all: bool = False
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    build_secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    author: str = ""


class DeploymentService:
    def __init__(self, store: Store, builds: BuildService, secrets: SecretBox) -> None:
        self._store = store
        self._builds = builds
        self._secrets = secrets

    async def apply(self, request: Request) -> Applied:
        """Makes a deployment or a new revision of it. A repeated request id is answered with the deployment that it
        made, whatever else has changed. Errors: InvalidSpec, InvalidRequest, FailedPrecondition, NotFound."""
        if earlier := await self._store.transact(lambda tx: earlier_call(tx, request.project, request.request_id)):
            return earlier
        if request.build_id and request.build_secrets:
            raise InvalidRequest("build_secrets", f"build {request.build_id} has had its secrets; leave them out")
        accepted = None if request.build_id else await self._accept(request)
        spec = await self._builds.read_spec(request.spec) if accepted is None else accepted.spec
        require_deployable(spec)
        check_secrets(spec, request.secrets)
        applied = await self._store.transact(lambda tx: self._apply(tx, request, spec, accepted))
        if accepted is not None and applied.deployment.build_id == accepted.build.id:
            await self._builds.announce(accepted.build)
        return applied

    async def get(self, deployment_id: str) -> Deployment:
        """Raises NotFound."""
        return await self._store.transact(lambda tx: existing(tx, deployment_id))

    async def by_name(self, project: Project, name: str) -> Deployment:
        """The one that is not deleted. Raises NotFound."""
        found = await self._store.transact(lambda tx: tx.deployments.by_name(project, name))
        if found is None:
            message = f"no deployment named {name} in project {project.user_id}/{project.project_id}"
            raise NotFound(Reason.NO_SUCH_DEPLOYMENT, message)
        return found

    async def page(self, wanted: DeploymentFilter, page: Page) -> tuple[list[DeploymentView], str]:
        """Newest first, and the token of the next page. Raises InvalidRequest."""
        check_labels(wanted.labels)
        return await self._store.transact(lambda tx: tx.listing.deployments(wanted, page))

    async def instances(self, wanted: InstanceFilter, page: Page) -> tuple[list[Placement], str]:
        """Ordered by deployment and device, and the token of the next page. Raises InvalidRequest."""
        check_labels(wanted.labels)
        return await self._store.transact(lambda tx: tx.listing.instances(wanted, page))

    async def view(self, deployment: Deployment) -> DeploymentView:
        """The deployment with all that is told of it."""
        return (await self._store.transact(lambda tx: tx.listing.views([deployment])))[0]

    async def placements(self, deployment_id: str) -> list[Placement]:
        """The workloads of a deployment with what their devices said."""
        return await self._store.transact(lambda tx: tx.workloads.placements(deployment_id=deployment_id))

    async def stop(self, deployment_id: str) -> Deployment:
        """Devices are wished to stop it. Idempotent. Raises NotFound."""
        return await self._store.transact(lambda tx: _wish(tx, deployment_id, Wish.STOP), frees=True)

    async def delete(self, deployment_id: str) -> Deployment:
        """Devices are wished to remove it. Idempotent. Raises NotFound."""
        return await self._store.transact(lambda tx: _wish(tx, deployment_id, Wish.DELETE), frees=True)

    async def _accept(self, request: Request) -> Accepted:
        """The build that the deployment needs, not stored yet."""
        wanted = BuildRequest(
            request.project, request.spec, request.files, secrets=request.build_secrets, for_devices=True,
            knows_all=request.knows_all,
        )  # fmt: skip
        return await self._builds.accept(wanted)

    def _apply(self, tx: Transaction, request: Request, spec: Spec, accepted: Accepted | None) -> Applied:
        if earlier := earlier_call(tx, request.project, request.request_id):
            return earlier
        events_from = tx.events.last_number(request.project)
        if accepted is not None:
            self._builds.add(tx, accepted, "")
        build_id = request.build_id if accepted is None else accepted.build.id
        build = tx.builds.get(build_id)
        if build is None or (build.user_id, build.project_id) != (request.project.user_id, request.project.project_id):
            message = f"no build {build_id} in project {request.project.user_id}/{request.project.project_id}"
            raise NotFound(Reason.NO_SUCH_BUILD, message)
        _require_profiles(spec, build)
        present = tx.deployments.by_name(request.project, spec.name)
        before = None if present is None else tx.deployments.secrets(present.id, present.revision)
        sealed = sealed_values(self._secrets, spec, request.secrets, before)
        deployment = _deployment(present, request, spec.name, build_id)
        (tx.deployments.add if present is None else tx.deployments.change)(deployment)
        volumes = pinned_volumes(tx, request.project, spec)
        tx.deployments.add_revision(deployment, request.request_id, sealed, request.author, volumes=volumes)
        tx.events.append(state_event(deployment))
        return Applied(reassess(tx, place(tx, deployment)), events_from)


def earlier_call(tx: Transaction, project: Project, request_id: str) -> Applied | None:
    """What this request made already."""
    made = tx.deployments.by_request(project, request_id) if request_id else None
    return None if made is None else Applied(made, tx.events.last_number(project))


def _require_profiles(spec: Spec, build: Build) -> None:
    """Every target can get an artifact: else its devices would be left out in silence. Raises InvalidRequest."""
    built = {target.key for target in build.targets}
    if missing := sorted({target.key for target in spec.targets} - built):
        message = f"build {build.id} is for {', '.join(sorted(built))}; the spec's targets also name {missing[0]}"
        raise InvalidRequest("build_id", message)


def _deployment(present: Deployment | None, request: Request, name: str, build_id: str) -> Deployment:
    if present is not None:
        return next_revision(present, request.spec, build_id)
    now = time.time()
    return Deployment(
        id=new_id("dep"), project=request.project, name=name, revision=1, wish=Wish.RUN, condition=ACCEPTED,
        since=now, build_id=build_id, created=now, updated=now, spec=request.spec,
    )  # fmt: skip


def next_revision(present: Deployment, spec: bytes, build_id: str) -> Deployment:
    """The deployment once this change of it is accepted."""
    now = time.time()
    return replace(
        present, revision=present.revision + 1, wish=Wish.RUN, condition=ACCEPTED, since=now, build_id=build_id,
        updated=now, spec=spec,
    )  # fmt: skip


def existing(tx: Transaction, deployment_id: str) -> Deployment:
    deployment = tx.deployments.get(deployment_id)
    if deployment is None:
        raise NotFound(Reason.NO_SUCH_DEPLOYMENT, f"no deployment {deployment_id}")
    return deployment


def _wish(tx: Transaction, deployment_id: str, wish: Wish) -> Deployment:
    deployment = existing(tx, deployment_id)
    if deployment.wish in (wish, Wish.DELETE):
        return deployment
    deployment = replace(deployment, wish=wish, updated=time.time())
    tx.deployments.change(deployment)
    if wish is Wish.DELETE:
        tx.deployments.wipe_secrets(deployment.id)
    withdraw(tx, deployment)
    return reassess(tx, deployment)
