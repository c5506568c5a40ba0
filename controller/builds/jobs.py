"""From stored builds to what a builder is given, and where its artifacts go."""

import hashlib
import re
from collections.abc import Mapping

from controller.builds.model import Build, BuildTarget, TargetJob
from controller.spec.model import Spec

COMPONENT = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")
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
        spec=spec.build,
        deploy=spec.deploy,
        files=build.files,
        repository=f"{registry}/{repository_path(build, spec.build.image)}",
        secrets=secrets or {},
        no_cache=build.no_cache,
    )


def repository_path(build: Build, image: str | None = None) -> str:
    """Where a build's artifacts lie in the registry."""
    return "/".join(_component(name) for name in (build.user_id, build.project_id, image or build.name))


def _component(name: str) -> str:
    """The name as a part of a repository's, whose grammar is narrower (OCI distribution spec, "Pulling manifests").

    One that is not allowed as it stands gets a mark made from it, so that no two owners ever share a repository.
    """
    if COMPONENT.fullmatch(name) and not MARKED.search(name):
        return name
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{plain}-x{hashlib.sha256(name.encode()).hexdigest()[:16]}"
