"""Which device should run what: from the spec's targets, the build's artifacts and the enrolled devices."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from controller.builds.model import ArtifactKind, BuildState, BuiltArtifact
from controller.builds.targets import load_profiles, wanted_devices
from controller.deployments.fitness import closed, unfit
from controller.deployments.model import NOT_ENOUGH, Deployment, LeftOut, Wish, WorkloadRow
from controller.devices.model import Device, Presence
from controller.spec.loader import load_spec
from controller.spec.model import MinimumSpec, Spec, TargetSpec
from controller.spec.resolve import workload_spec
from controller.store import Transaction
from controller.volumes.model import PinnedVolume

ANY_DEVICE = MinimumSpec()


@dataclass(frozen=True)
class Choice:
    """Which device gets what: device id -> key of its target; the devices that match and do not get it; and those of
    them that are drained, and have it stopped."""

    targets: Mapping[str, str]
    left_out: tuple[LeftOut, ...]
    drained: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Change:
    """What `difference` found: workloads to put, devices that should not have the deployment any more, and those that
    are to stop it and to keep what they have of it."""

    put: tuple[WorkloadRow, ...]
    drop: tuple[str, ...]
    halt: tuple[str, ...] = ()


def place(tx: Transaction, deployment: Deployment) -> Deployment:
    """Afterwards each matching device that can is wished to run the present revision, and no other device. Answers the
    deployment with the devices that match and cannot.

    Does nothing before the build has succeeded: what runs goes on running.
    """
    build = tx.builds.get(deployment.build_id)
    if deployment.wish is not Wish.RUN or build is None or build.state is not BuildState.SUCCEEDED:
        return deployment
    spec = load_spec(deployment.spec)
    artifacts = {target.key: target.artifact for target in build.targets if target.artifact is not None}
    devices = {target.profile: tx.devices.matching(target.profile, {}) for target in spec.targets}
    present = {row.device_id: row for row in tx.workloads.of_deployment(deployment.id)}
    having = frozenset(key for key, row in present.items() if row.wish is not Wish.DELETE)
    holding = _holding(deployment, present.values())
    pinned = tx.deployments.volumes(deployment.id, deployment.revision)
    chosen = select(tuple(spec.targets), devices, spec.build.minimum, holding, having, volumes=bool(pinned))
    wished = _wished(deployment, spec, artifacts, pinned, chosen.targets)
    change = difference(wished, present, chosen.drained)
    for workload in change.put:
        tx.workloads.put(workload)
        tx.devices.advance(workload.device_id)
    for wish, devices_of_it in ((Wish.DELETE, change.drop), (Wish.STOP, change.halt)):
        for device_id in devices_of_it:
            tx.workloads.wish(deployment.id, device_id, wish)
            tx.devices.advance(device_id)
    # From now on no device is told of an older revision; those that return to one have kept what it needs.
    tx.deployments.wipe_secrets(deployment.id, before=deployment.revision)
    if chosen.left_out == deployment.left_out:
        return deployment
    deployment = replace(deployment, left_out=chosen.left_out)
    tx.deployments.change(deployment)
    return deployment


def withdraw(tx: Transaction, deployment: Deployment) -> None:
    """Afterwards each device that has the deployment is wished to stop it, or to delete it, as the deployment is."""
    for workload in tx.workloads.of_deployment(deployment.id):
        if workload.wish not in (deployment.wish, Wish.DELETE):
            tx.workloads.wish(deployment.id, workload.device_id, deployment.wish)
            tx.devices.advance(workload.device_id)


def select(
    targets: tuple[TargetSpec, ...],
    devices: Mapping[str, list[Device]],
    minimum: MinimumSpec = ANY_DEVICE,
    holding: Collection[str] = (),
    having: Collection[str] = (),
    *,
    volumes: bool = False,
) -> Choice:
    """Of the targets that match a device and want one more, the first for which it is fit. `devices`: those of each
    profile; `holding`: those that have the revision already, which keep it although they say that they have less than
    before; `having`: those that have any revision, which keep the deployment although they are cordoned; `volumes`:
    there are project volumes to be mounted."""
    chosen: dict[str, str] = {}
    refused: dict[str, LeftOut] = {}
    drained: set[str] = set()
    short: list[LeftOut] = []
    for index, target in enumerate(targets):
        fit: list[Device] = []
        for device in devices[target.profile]:
            if device.id in chosen or not target.labels.items() <= device.labels.items():
                continue
            needed = ANY_DEVICE if device.id in holding else minimum
            mounts = volumes and device.id not in holding
            why = unfit(device, needed, ArtifactKind(target.artifact), volumes=mounts)
            if why is None and (why := closed(device, has_it=device.id in having)) is None:
                fit.append(device)
                continue
            refused.setdefault(device.id, why)
            if why.reason == "DeviceDrained":
                drained.add(device.id)
        taken = _as_many_as_wanted(fit, target, holding, having)
        chosen.update({device.id: target.key for device in taken})
        if taken and target.replicas != "all" and len(taken) < target.replicas:
            text = f"asks for {target.replicas} devices, and {len(taken)} can run it"
            short.append(LeftOut(f"targets[{index}]", NOT_ENOUGH, text))
    left = {device_id: why for device_id, why in refused.items() if device_id not in chosen}
    # Where each target has as many as it wants, nobody misses those that are not fit.
    missed = short or not chosen or any(target.replicas == "all" for target in targets)
    return Choice(chosen, (*short, *(left.values() if missed else ())), frozenset(drained))


def _as_many_as_wanted(
    fit: list[Device], target: TargetSpec, holding: Collection[str], having: Collection[str]
) -> list[Device]:
    """Of the devices that are fit. One that has it keeps it, also out of sight, since it may go on running there; of
    the others those in sight are first, then those that were enrolled first."""
    if target.replicas == "all":
        return fit
    ranks = {device.id: 0 if device.id in holding else 1 if device.id in having else 2 for device in fit}
    ordered = sorted(fit, key=lambda device: (ranks[device.id], device.presence is not Presence.ONLINE))
    return ordered[: target.replicas]


def difference(
    wished: Mapping[str, WorkloadRow], present: Mapping[str, WorkloadRow], drained: Collection[str] = ()
) -> Change:
    """What has to change so that `present` becomes `wished`; both by device id. `drained`: devices that keep theirs,
    but do not run it."""
    put = tuple(row for device_id, row in wished.items() if present.get(device_id) != row)
    others = {key: row.wish for key, row in present.items() if key not in wished}
    drop = tuple(key for key, wish in others.items() if key not in drained and wish is not Wish.DELETE)
    return Change(put, drop, tuple(key for key, wish in others.items() if key in drained and wish is Wish.RUN))


def _holding(deployment: Deployment, present: Iterable[WorkloadRow]) -> frozenset[str]:
    """Devices that have the present revision. A driver that fails for a moment must not end what runs and delete its
    volumes; what really cannot run any more says so itself."""
    kept = (row for row in present if row.wish is Wish.RUN and row.revision == deployment.revision)
    return frozenset(row.device_id for row in kept)


def _wished(
    deployment: Deployment,
    spec: Spec,
    artifacts: Mapping[str, BuiltArtifact],
    pinned: tuple[PinnedVolume, ...],
    chosen: Mapping[str, str],
) -> dict[str, WorkloadRow]:
    profiles = {target.key: load_profiles().get(target.profile) for target in spec.targets}
    how = {
        key: workload_spec(spec, wanted_devices(profile, spec.build), pinned).SerializeToString(deterministic=True)
        for key, profile in profiles.items()
    }
    return {
        device_id: WorkloadRow(
            deployment.id, device_id, deployment.revision, Wish.RUN, artifacts[key], how[key], pinned
        )
        for device_id, key in chosen.items()
        if key in artifacts
    }
