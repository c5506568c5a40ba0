"""What would be built: Containerfiles, and whole build contexts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from controller.builds.context_archive import archive, folder_entries
from controller.builds.model import ArtifactKind, Build, BuildFailed, BuildTarget, TargetJob
from controller.builds.preview import Preview, preview
from controller.errors import FailedPrecondition, InvalidRequest, Unavailable
from controller.events.model import Project
from controller.rendering import CannotQuote
from controller.rpc import convert
from controller.rpc.access import require_project
from controller.rpc.build_parts import BuildCalls, one_target
from controller.rpc.spec_warnings import spec_warnings
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
        return build_pb2.RenderBuildResponse(
            targets=map(_rendered_to, previews), warnings=await spec_warnings(request.spec)
        )

    async def DownloadBuildContext(
        self, request: build_pb2.DownloadBuildContextRequest, context: Any
    ) -> AsyncIterator[build_pb2.DownloadBuildContextResponse]:
        build = await self._visible(request.build_id)
        target = one_target(build, request.target)
        if target.kind is ArtifactKind.BUNDLE:
            raise InvalidRequest("target", f"{target.key} is a bundle; only images have a build context")
        job = await asyncio.to_thread(self._job, build, target)
        assert self._parts.contexts is not None
        try:
            async with self._parts.contexts.folder(job) as folder:
                async for piece in _pieces(folder):
                    yield build_pb2.DownloadBuildContextResponse(data=piece)
        except BuildFailed as failure:
            kind = Unavailable if failure.retryable else FailedPrecondition
            message = f"the context of {target.key} of build {build.id} cannot be made: {failure.message}"
            raise kind(Reason.CONTEXT_UNAVAILABLE, message) from failure

    def _previews(self, project: Project, spec: Spec) -> list[Preview]:
        targets = {target.key: target for target in spec.targets}
        try:
            return [preview(project, spec, one, self._parts.profiles[one.profile]) for one in targets.values()]
        except (CannotQuote, BuildFailed) as error:
            raise InvalidRequest("spec", str(error)) from error

    def _job(self, build: Build, target: BuildTarget) -> TargetJob:
        """Blocks. Raises FailedPrecondition where files are gone."""
        missing = sorted({file.digest for file in build.files if not self._parts.uploads.stat(file.digest).complete})
        if missing:
            message = f"{len(missing)} files of build {build.id} are no longer kept, the first is {missing[0]}"
            raise FailedPrecondition(Reason.MISSING_UPLOADS, message, missing=",".join(missing[:50]))
        return self._parts.builds.job(build, target)


async def _pieces(folder: Path) -> AsyncIterator[bytes]:
    pieces = archive(await asyncio.to_thread(folder_entries, folder))
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece


def _rendered_to(one: Preview) -> build_pb2.RenderedTarget:
    return build_pb2.RenderedTarget(
        key=one.target.key,
        profile=one.target.profile,
        platform=one.platform,
        kind=types_pb2.ArtifactKind.Value(f"ARTIFACT_KIND_{one.kind.name}"),
        text=one.text,
        notes=one.notes,
    )
