"""Whether a device can run what is to run there, by what it said of itself. Pure."""

from collections.abc import Iterator

from controller.builds.model import ArtifactKind
from controller.builds.targets import load_profiles
from controller.deployments.model import LeftOut
from controller.devices.facts import Abilities, abilities
from controller.devices.model import Device, Scheduling
from controller.spec.model import MinimumSpec

GIB = 2**30


def unfit(device: Device, minimum: MinimumSpec, kind: ArtifactKind, *, volumes: bool = False) -> LeftOut | None:
    """Why the device gets no workload; None where it can have one. What it has not told counts as not there. `volumes`:
    it has to mount project volumes."""
    facts = abilities(device.facts)
    lacking = _unaccelerated(device, facts, minimum)
    unable = _no_volumes(facts) if volumes else ()
    for reason, text in (*_wrong_backend(facts, kind), *unable, *_too_small(facts, minimum), *lacking):
        return LeftOut(device.name, reason, text)
    return None


def closed(device: Device, *, has_it: bool) -> LeftOut | None:
    """Why a device that is fit gets no workload all the same: its operator says so. `has_it`: the deployment is there
    already. None where it may have one."""
    told = f" by {device.scheduling_by}" if device.scheduling_by else ""
    why = f": {device.scheduling_reason}" if device.scheduling_reason else ""
    if device.scheduling.drains:
        return LeftOut(device.name, "DeviceDrained", f"it was drained{told}{why}")
    if device.scheduling is Scheduling.CORDONED and not has_it:
        return LeftOut(device.name, "DeviceCordoned", f"it was cordoned{told}{why}")
    return None


def _wrong_backend(facts: Abilities, kind: ArtifactKind) -> Iterator[tuple[str, str]]:
    """Most devices run images: one that has not told what it runs is taken for one of these."""
    if kind not in (facts.artifacts or {ArtifactKind.IMAGE}):
        others = f"it runs {', '.join(f'{each}s' for each in sorted(facts.artifacts))}"
        known = others if facts.artifacts else "what it runs is not known yet"
        yield "NoSuchBackend", f"it does not run {kind}s ({known})"


def _no_volumes(facts: Abilities) -> Iterator[tuple[str, str]]:
    if not facts.project_volumes:
        yield "NoProjectVolumes", "its agent cannot mount project volumes; upgrade it, or see its facts"


def _too_small(facts: Abilities, minimum: MinimumSpec) -> Iterator[tuple[str, str]]:
    if minimum.cpu is not None and facts.cpus < minimum.cpu:
        has = facts.cpus or "an unknown number"
        yield "DeviceTooSmall", f"build.minimum.cpu asks for {minimum.cpu:g} cores, it has {has}"
    if minimum.memory is not None and facts.memory_bytes < minimum.memory:
        has = f"{facts.memory_bytes / GIB:.2f} GiB" if facts.memory_bytes else "an unknown amount"
        yield "DeviceTooSmall", f"build.minimum.memory asks for {minimum.memory / GIB:.2f} GiB, it has {has}"


def _unaccelerated(device: Device, facts: Abilities, minimum: MinimumSpec) -> Iterator[tuple[str, str]]:
    for kind, wanted in minimum.accelerators.items():
        has = _accelerators(device, facts, kind)
        if has is None:
            hint = f"it has found none, and nobody said how many it has; enroll it with the label {kind}=COUNT"
            yield "NoAccelerator", f"build.minimum asks for {wanted} {kind}, and {hint}"
        elif has < wanted:
            yield "NoAccelerator", f"build.minimum asks for {wanted} {kind}, it has {has}"


def _accelerators(device: Device, facts: Abilities, kind: str) -> int | None:
    """What its label says, else as many as it has found, else one where its profile has such an accelerator; None where
    nothing tells."""
    said = device.labels.get(kind, "")
    if said.isdecimal():
        return int(said)
    if found := facts.accelerators.get(kind, 0):
        return found
    profile = load_profiles().get(device.profile)
    if profile is not None and profile.accelerator is not None and profile.accelerator.kind == kind:
        return 1
    return None
