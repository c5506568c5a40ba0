"""BuildService."""

from collections.abc import AsyncIterator
from typing import Any

from controller.builds.model import Build
from controller.builds.service import BuildRequest
from controller.errors import InvalidRequest
from controller.rpc import convert
from controller.rpc.access import require_project, visible_user
from controller.rpc.build_catalogue import CatalogueCalls
from controller.rpc.build_hosts import HostCalls
from controller.rpc.build_materials import MaterialCalls
from controller.rpc.build_parts import BuildParts
from controller.rpc.build_preview import PreviewCalls
from controller.rpc.build_records import RecordCalls
from controller.rpc.spec_warnings import spec_warnings
from longshore.v1 import build_pb2, build_pb2_grpc

MOST_DIGESTS = 10_000


class BuildServicer(
    CatalogueCalls, PreviewCalls, RecordCalls, MaterialCalls, HostCalls, build_pb2_grpc.BuildServiceServicer
):
    """All calls; here those that make and follow builds."""

    def __init__(self, parts: BuildParts) -> None:
        super().__init__(parts)
        self._builds = parts.builds
        self._uploads = parts.uploads
        self._logs = parts.logs

    async def CancelBuild(self, request: build_pb2.CancelBuildRequest, context: Any) -> build_pb2.CancelBuildResponse:
        await self._visible(request.id)
        return build_pb2.CancelBuildResponse(build=await self._message(await self._builds.cancel(request.id)))

    async def StatUploads(self, request: build_pb2.StatUploadsRequest, context: Any) -> build_pb2.StatUploadsResponse:
        if len(request.digests) > MOST_DIGESTS:
            raise InvalidRequest("digests", f"at most {MOST_DIGESTS} at a time")
        return build_pb2.StatUploadsResponse(uploads=[self._state(digest) for digest in request.digests])

    async def WriteUpload(
        self, request_iterator: AsyncIterator[build_pb2.WriteUploadRequest], context: Any
    ) -> build_pb2.WriteUploadResponse:
        first = await anext(aiter(request_iterator), None)
        if first is None:
            raise InvalidRequest("digest", "the stream has no first piece")
        pieces = _pieces(first, request_iterator)
        await self._uploads.write(first.digest, first.size_bytes, first.offset, pieces, visible_user())
        return build_pb2.WriteUploadResponse(upload=self._state(first.digest))

    async def CreateBuild(self, request: build_pb2.CreateBuildRequest, context: Any) -> build_pb2.CreateBuildResponse:
        project = convert.project_from(request.project)
        require_project(project)
        wanted = BuildRequest(
            project,
            request.spec,
            convert.files_from(list(request.files)),
            convert.request_id_from(request),
            convert.secrets_from(request.secrets),
            request.no_cache,
            tuple(request.targets),
            request.archive,
            knows_all=not visible_user(),
        )
        build = await self._builds.create(wanted)
        return build_pb2.CreateBuildResponse(
            build=await self._message(build), warnings=await spec_warnings(request.spec)
        )

    async def GetBuild(self, request: build_pb2.GetBuildRequest, context: Any) -> build_pb2.GetBuildResponse:
        return build_pb2.GetBuildResponse(build=await self._message(await self._visible(request.id)))

    async def ListBuilds(self, request: build_pb2.ListBuildsRequest, context: Any) -> build_pb2.ListBuildsResponse:
        project = convert.project_from(request.project) if request.HasField("project") else None
        builds, token = await self._builds.page(project, visible_user(), convert.page_from(request.page))
        positions = await self._builds.positions(builds)
        messages = [convert.build_to(build, positions) for build in builds]
        return build_pb2.ListBuildsResponse(builds=messages, next_page_token=token)

    async def ReadBuildLog(
        self, request: build_pb2.ReadBuildLogRequest, context: Any
    ) -> AsyncIterator[build_pb2.ReadBuildLogResponse]:
        await self._visible(request.build_id)

        async def ended() -> bool:
            return (await self._builds.get(request.build_id)).ended > 0

        wanted = (request.build_id, request.from_number, request.follow)
        async for line in self._logs.read(*wanted, ended, request.target):
            yield convert.build_line_to(line)

    async def _message(self, build: Build) -> build_pb2.Build:
        return convert.build_to(build, await self._builds.positions([build]))

    def _state(self, digest: str) -> build_pb2.UploadState:
        complete, held = self._uploads.stat(digest, visible_user())
        return build_pb2.UploadState(digest=digest, complete=complete, held_bytes=held)


async def _pieces(
    first: build_pb2.WriteUploadRequest, rest: AsyncIterator[build_pb2.WriteUploadRequest]
) -> AsyncIterator[bytes]:
    """The data of all pieces; each has to begin where the one before ended."""
    expected = first.offset + len(first.data)
    yield first.data
    async for piece in rest:
        if piece.offset != expected:
            raise InvalidRequest(
                "offset", f"{piece.offset} does not follow the piece before, which ended at {expected}"
            )
        expected += len(piece.data)
        yield piece.data
