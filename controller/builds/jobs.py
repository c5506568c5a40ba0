"""From stored builds to what a builder is given, and where its artifacts go."""

import hashlib
import re
from collections.abc import Mapping

from controller.builds.model import ArtifactKind, Build, BuildTarget, TargetJob
from controller.spec.model import Spec

COMPONENT = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")
# What lies there in the registry is the operator's, and a base for everybody.
FOR_EVERYBODY = "library"
MARKED = re.compile(r"-x[0-9a-f]{16}\Z")


def target_job(
    build: Build, target: BuildTarget, spec: Spec, registry: str, secrets: Mapping[str, bytes] | None = None
) -> TargetJob:
    """What a builder needs to build this target. `registry`: host:port; `secrets`: their values by name."""
    return TargetJob(
        build_id=build.id,
        user_id=build.user_id,
        project_id=build.project_id,
        name=build.name,
        profile=target.profile,
        kind=target.kind,
        target=target.key,
        tag=image_tag(build, target),
        again=target.attempts > 1,
        spec=spec.build,
        deploy=spec.deploy,
        files=build.files,
        repository=f"{registry}/{repository_path(build, spec.build.image)}",
        secrets=secrets or {},
        no_cache=build.no_cache,
    )


def image_tag(build: Build, target: BuildTarget) -> str:
    """Under which a target's image is pushed: the build's id, which comes to name the index where there are several."""
    images = [each for each in build.targets if each.kind is ArtifactKind.IMAGE]
    return build.id if len(images) < 2 else f"{build.id}.{target.key}"


def repository_path(build: Build, image: str | None = None) -> str:
    """Where a build's artifacts lie in the registry. No user's lie below the operator's folder."""
    return "/".join((_owner(build.user_id), _component(build.project_id), _component(image or build.name)))


def volume_path(user_id: str, project_id: str, name: str) -> str:
    """Where a project's volume lies in the registry: one level deeper than what builds make."""
    return "/".join((_owner(user_id), _component(project_id), "volumes", _component(name)))


def _owner(user_id: str) -> str:
    return _marked(FOR_EVERYBODY) if user_id == FOR_EVERYBODY else _component(user_id)


def _component(name: str) -> str:
    """The name as a part of a repository's, whose grammar is narrower (OCI distribution spec, "Pulling manifests").

    One that is not allowed as it stands gets a mark made from it, so that no two owners ever share a repository.
    """
    if COMPONENT.fullmatch(name) and not MARKED.search(name):
        return name
    return _marked(name)


def _marked(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{plain}-x{hashlib.sha256(name.encode()).hexdigest()[:16]}"
