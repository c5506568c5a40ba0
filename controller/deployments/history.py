"""What a deployment was at each of its revisions, and the way back to one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controller.builds.model import BuildState, ContextFile
from controller.deployments.assess import reassess, state_event
from controller.deployments.changes import FieldChange, file_changes, spec_changes
from controller.deployments.model import Deployment, Revision, Wish
from controller.deployments.placing import place
from controller.deployments.secrets import check_secrets, sealed_values
from controller.deployments.service import Applied, earlier_call, existing, next_revision
from controller.deployments.volumes import lost_volume
from controller.errors import FailedPrecondition, InvalidRequest, InvalidSpec, NotFound
from controller.events.model import Project
from controller.sealing import SecretBox
from controller.spec.loader import load_spec
from controller.store import Store, Transaction
from controller.store.rows import Page
from longshore.errors import Reason


@dataclass(frozen=True)
class Change:
    """A revision, and what it changed against the one before."""

    revision: Revision
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True)
class Undo:
    """What UndoDeployment asks for. `to_revision` 0: the newest usable one before the present one."""

    deployment_id: str
    to_revision: int = 0
    request_id: str = ""
    author: str = ""
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Comparison:
    """What DiffDeployment asks for: a revision against another, or against a spec and, where they are given, its
    files. 0 as in the contract."""

    deployment_id: str
    from_revision: int = 0
    to_revision: int = 0
    spec: bytes = b""
    files: Sequence[ContextFile] = ()


@dataclass(frozen=True)
class Difference:
    """`to_revision` is 0 for a spec."""

    from_revision: int
    to_revision: int
    fields: tuple[FieldChange, ...]


class HistoryService:
    def __init__(self, store: Store, secrets: SecretBox) -> None:
        self._store = store
        self._secrets = secrets

    async def page(self, deployment_id: str, page: Page) -> tuple[list[Change], str]:
        """Newest first, and the token of the next page."""
        return await self._store.transact(lambda tx: _page(tx, deployment_id, page))

    async def compare(self, wanted: Comparison) -> Difference:
        """Errors: NotFound, InvalidSpec."""
        return await self._store.transact(lambda tx: _compare(tx, wanted))

    async def undo(self, wanted: Undo) -> Applied:
        """Makes a new revision that is equal to an earlier one. A repeated request id is answered with what it made.
        Errors: NotFound, FailedPrecondition, InvalidRequest."""
        return await self._store.transact(lambda tx: self._undo(tx, wanted))

    def _undo(self, tx: Transaction, wanted: Undo) -> Applied:
        present = existing(tx, wanted.deployment_id)
        if earlier := earlier_call(tx, present.project, wanted.request_id):
            return earlier
        target = _target(tx, present, wanted.to_revision)
        spec = load_spec(target.spec)
        check_secrets(spec, wanted.secrets)
        before = tx.deployments.secrets(present.id, present.revision)
        sealed = sealed_values(self._secrets, spec, wanted.secrets, before)
        events_from = tx.events.last_number(present.project)
        deployment = next_revision(present, target.spec, target.build_id)
        tx.deployments.change(deployment)
        volumes = tx.deployments.volumes(present.id, target.revision)
        tx.deployments.add_revision(deployment, wanted.request_id, sealed, wanted.author, target.revision, volumes)
        tx.events.append(state_event(deployment))
        return Applied(reassess(tx, place(tx, deployment)), events_from)


def _page(tx: Transaction, deployment_id: str, page: Page) -> tuple[list[Change], str]:
    found, token = tx.revisions.page(deployment_id, page)
    return [Change(revision, _made_by(tx, revision)) for revision in found], token


def _made_by(tx: Transaction, revision: Revision) -> tuple[FieldChange, ...]:
    before = tx.revisions.get(revision.deployment_id, revision.revision - 1)
    return () if before is None else _between(tx, before, revision)


def _compare(tx: Transaction, wanted: Comparison) -> Difference:
    present = existing(tx, wanted.deployment_id)
    if wanted.spec:
        before = _revision(tx, present, wanted.from_revision or present.revision)
        fields = spec_changes(load_spec(before.spec), load_spec(wanted.spec))
        if wanted.files:
            fields += file_changes(_files(tx, before) or (), wanted.files)
        return Difference(before.revision, 0, _ordered(fields))
    after = _revision(tx, present, wanted.to_revision or present.revision)
    before = _revision(tx, present, wanted.from_revision or after.revision - 1)
    return Difference(before.revision, after.revision, _between(tx, before, after))


def _between(tx: Transaction, before: Revision, after: Revision) -> tuple[FieldChange, ...]:
    """The specs were accepted once. One that this version reads no more is told as a whole."""
    try:
        fields = spec_changes(load_spec(before.spec), load_spec(after.spec))
    except InvalidSpec:
        return (FieldChange("", before.spec.decode(errors="replace"), after.spec.decode(errors="replace")),)
    old, new = _files(tx, before), _files(tx, after)
    # Of a build that was tidied away nobody knows the files.
    return _ordered(fields if old is None or new is None else fields + file_changes(old, new))


def _ordered(fields: list[FieldChange]) -> tuple[FieldChange, ...]:
    return tuple(sorted(fields, key=lambda field: field.path))


def _files(tx: Transaction, revision: Revision) -> tuple[ContextFile, ...] | None:
    build = tx.builds.get(revision.build_id)
    return None if build is None else build.files


def _revision(tx: Transaction, deployment: Deployment, number: int) -> Revision:
    found = tx.revisions.get(deployment.id, number)
    if found is None:
        message = f"{deployment.name} has no revision {number}; its present one is {deployment.revision}"
        raise NotFound(Reason.NO_SUCH_REVISION, message)
    return found


def _target(tx: Transaction, present: Deployment, number: int) -> Revision:
    """The revision to return to."""
    if present.wish is Wish.DELETE:
        message = f"{present.name} was deleted; deploy it again"
        raise FailedPrecondition(Reason.REVISION_UNUSABLE, message)
    if number == present.revision:
        raise InvalidRequest("to_revision", f"{number} is the present revision of {present.name}")
    if not number:
        return _newest_usable(tx, present)
    found = _revision(tx, present, number)
    if why := _unusable(tx, found):
        message = f"revision {number} of {present.name} cannot be returned to: {why}; deploy its file again"
        raise FailedPrecondition(Reason.REVISION_UNUSABLE, message)
    return found


def _newest_usable(tx: Transaction, present: Deployment) -> Revision:
    for number in range(present.revision - 1, 0, -1):
        found = tx.revisions.get(present.id, number)
        if found is not None and not _unusable(tx, found):
            return found
    message = f"{present.name} has no revision before {present.revision} to return to"
    raise NotFound(Reason.NO_SUCH_REVISION, message)


def _unusable(tx: Transaction, revision: Revision) -> str:
    """Why it cannot be run again; "" where it can."""
    build = tx.builds.get(revision.build_id)
    if build is None:
        return f"its build {revision.build_id} is not kept any more"
    project = Project(build.user_id, build.project_id)
    if lost := lost_volume(tx, project, tx.deployments.volumes(revision.deployment_id, revision.revision)):
        return f"its volume {lost} is not kept any more"
    return "" if build.state is BuildState.SUCCEEDED else f"its build {build.id} is {build.state.lower()}"
