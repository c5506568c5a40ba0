"""What would be built: Containerfiles, and whole build contexts."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from controller.builds.bases import full_name
from controller.builds.context import context_entries
from controller.builds.context_archive import archive
from controller.builds.jobs import target_job
from controller.builds.model import ArtifactKind, Build, BuildFailed, BuildTarget
from controller.builds.plan import plan_image
from controller.builds.preview import Preview, preview
from controller.builds.requirements import base_of
from controller.errors import FailedPrecondition, InvalidRequest, NotFound
from controller.events.model import Project
from controller.rendering import CannotQuote
from controller.rpc import convert
from controller.rpc.access import require_project
from controller.rpc.build_parts import BuildCalls
from controller.spec.model import Spec
from longshore.errors import Reason
from longshore.v1 import build_pb2, types_pb2


class PreviewCalls(BuildCalls):
    """What would be built: Containerfiles, and whole build contexts."""

    async def RenderBuild(self, request: build_pb2.RenderBuildRequest, context: Any) -> build_pb2.RenderBuildResponse:
        project = convert.project_from(request.project)
        require_project(project)
        spec = await self._parts.builds.read_spec(request.spec)
        previews = await asyncio.to_thread(self._previews, project, spec)
        return build_pb2.RenderBuildResponse(targets=map(_rendered_to, previews))

    async def DownloadBuildContext(
        self, request: build_pb2.DownloadBuildContextRequest, context: Any
    ) -> AsyncIterator[build_pb2.DownloadBuildContextResponse]:
        build = await self._visible(request.build_id)
        target = one_target(build, request.target)
        if target.kind is ArtifactKind.BUNDLE:
            raise InvalidRequest("target", f"{target.key} is a bundle; only images have a build context")
        spec = await self._parts.builds.read_spec(build.spec)
        pieces = await asyncio.to_thread(self._pieces, build, target, spec)
        while (piece := await asyncio.to_thread(next, pieces, b"")) != b"":
            yield build_pb2.DownloadBuildContextResponse(data=piece)

    def _previews(self, project: Project, spec: Spec) -> list[Preview]:
        targets = {target.key: target for target in spec.targets}
        try:
            return [preview(project, spec, one, self._parts.profiles[one.profile]) for one in targets.values()]
        except (CannotQuote, BuildFailed) as error:
            raise InvalidRequest("spec", str(error)) from error

    def _pieces(self, build: Build, target: BuildTarget, spec: Spec) -> Iterator[bytes]:
        """Blocks. Raises FailedPrecondition where files are gone."""
        missing = sorted({file.digest for file in build.files if not self._parts.uploads.stat(file.digest).complete})
        if missing:
            message = f"{len(missing)} files of build {build.id} are no longer kept, the first is {missing[0]}"
            raise FailedPrecondition(Reason.MISSING_UPLOADS, message, missing=",".join(missing[:50]))
        profile = self._parts.profiles.get(target.profile)
        if profile is None:
            raise NotFound(Reason.NO_SUCH_BUILD, f"there is no target profile {target.profile} any more")
        job = target_job(build, target, spec, "")
        plan = plan_image(job, profile, full_name(base_of(spec.build, profile)))
        return archive(context_entries(plan, build.files, self._parts.uploads))


def one_target(build: Build, key: str) -> BuildTarget:
    """The target of this key; the only one for "". Raises InvalidRequest and NotFound, which name the known ones."""
    known = ", ".join(target.key for target in build.targets)
    if not key and len(build.targets) > 1:
        raise InvalidRequest("target", f"build {build.id} has several targets; name one of {known}")
    found = next((target for target in build.targets if target.key == key or not key), None)
    if found is None:
        raise NotFound(Reason.NO_SUCH_BUILD, f"build {build.id} has no target {key}; there are: {known}")
    return found


def _rendered_to(one: Preview) -> build_pb2.RenderedTarget:
    return build_pb2.RenderedTarget(
        key=one.target.key,
        profile=one.target.profile,
        platform=one.platform,
        kind=types_pb2.ArtifactKind.Value(f"ARTIFACT_KIND_{one.kind.name}"),
        text=one.text,
        notes=one.notes,
    )
