"""Which wishes fit which target profiles: engines, distributions, kinds of artifacts, accelerators."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

from controller.spec.findings import Finding
from controller.spec.messages import nearest
from controller.spec.model import BuildSpec, RuntimeSpec, TargetSpec
from controller.spec.runtimes import RuntimeKind


class Accelerator(Protocol):
    @property
    def kind(self) -> str: ...


class Profile(Protocol):
    """What a spec has to know of a target profile; controller.builds.targets.TargetProfile is one."""

    @property
    def description(self) -> str: ...
    @property
    def bases(self) -> Mapping[str, str]: ...
    @property
    def engines(self) -> Collection[str]: ...
    @property
    def artifacts(self) -> Collection[Any]: ...
    @property
    def accelerator(self) -> Accelerator | None: ...


def unknown_profiles(data: object, known: Collection[str]) -> Iterator[Finding]:
    """Looks at what is written, so that a misspelled profile gets its suggestion even where it is no name at all."""
    targets = data.get("targets") if isinstance(data, dict) else None
    for index, target in enumerate(targets if isinstance(targets, list) else []):
        name = target.get("profile") if isinstance(target, dict) else None
        if isinstance(name, str) and name not in known:
            message = f"unknown target profile '{name[:60]}'{nearest(name, known)}; known: {', '.join(sorted(known))}"
            yield Finding(("targets", index, "profile"), message)


def pair_findings(
    build: BuildSpec,
    targets: Mapping[int, TargetSpec],
    profiles: Mapping[str, Profile],
    runtimes: Mapping[str, RuntimeKind],
) -> Iterator[Finding]:
    """What a target asks for and its profile does not have."""
    wanted = {target.profile: profiles[target.profile] for target in targets.values() if target.profile in profiles}
    if build.runtime is not None:
        yield from _engine(build.runtime, wanted, profiles, runtimes)
    if build.distribution is not None:
        yield from _distribution(build.distribution, wanted)
    yield from _artifacts(targets, profiles)
    yield from _accelerators(build, wanted)


def _engine(
    runtime: RuntimeSpec,
    wanted: Mapping[str, Profile],
    profiles: Mapping[str, Profile],
    runtimes: Mapping[str, RuntimeKind],
) -> Iterator[Finding]:
    kind = runtime.kind
    if kind not in runtimes:
        message = f"unknown runtime '{kind}'{nearest(kind, runtimes)}; known: {', '.join(sorted(runtimes))}"
        yield Finding(("build", "runtime", "kind"), message)
        return
    for name, profile in wanted.items():
        if kind not in profile.engines:
            fitting = [other for other, one in profiles.items() if kind in one.engines]
            message = (
                f"{kind} does not run on {name} ({profile.description}); possible there: {', '.join(profile.engines)}; "
                f"{kind} runs on: {', '.join(fitting) or 'no profile'}"
            )
            yield Finding(("build", "runtime", "kind"), message)


def _distribution(distribution: str, wanted: Mapping[str, Profile]) -> Iterator[Finding]:
    for name, profile in wanted.items():
        if distribution not in profile.bases:
            choices = ", ".join(profile.bases) or "none; name an image as build.base"
            hint = nearest(distribution, profile.bases)
            message = f"the target profile {name} has no distribution '{distribution}'{hint}; it has: {choices}"
            yield Finding(("build", "distribution"), message)


def _artifacts(targets: Mapping[int, TargetSpec], profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    for index, target in targets.items():
        profile = profiles.get(target.profile)
        if profile is not None and target.artifact not in profile.artifacts:
            allowed = " or ".join(profile.artifacts)
            message = f"{target.profile} takes no {target.artifact}; expected {allowed}"
            yield Finding(("targets", index, "artifact"), message)


def _accelerators(build: BuildSpec, wanted: Mapping[str, Profile]) -> Iterator[Finding]:
    for kind in build.minimum.accelerators:
        for name, profile in wanted.items():
            has = profile.accelerator.kind if profile.accelerator else "no accelerator"
            if has != kind:
                message = (
                    f"no device of {name} has {kind}: the profile has {has}; take another profile, or leave it out"
                )
                yield Finding(("build", "minimum", "accelerators", kind), message)
