"""VolumeService."""

from typing import Any

from controller.events.model import Project
from controller.rpc import convert
from controller.rpc.access import require_project, visible_user
from controller.volumes.model import VolumeVersion
from controller.volumes.service import Push, VolumeService
from longshore.v1 import types_pb2, volume_pb2, volume_pb2_grpc


class VolumeServicer(volume_pb2_grpc.VolumeServiceServicer):
    def __init__(self, volumes: VolumeService) -> None:
        self._volumes = volumes

    async def PushVolume(self, request: volume_pb2.PushVolumeRequest, context: Any) -> volume_pb2.PushVolumeResponse:
        push = Push(_own(request.project), request.name, convert.files_from(list(request.files)), visible_user())
        version, sent = await self._volumes.push(push)
        return volume_pb2.PushVolumeResponse(version=version_to(version), sent_bytes=sent)

    async def ListVolumes(self, request: volume_pb2.ListVolumesRequest, context: Any) -> volume_pb2.ListVolumesResponse:
        project = convert.project_from(request.project) if request.HasField("project") else None
        page = convert.page_from(request.page)
        found, token = await self._volumes.page(project, visible_user(), request.name, page)
        return volume_pb2.ListVolumesResponse(versions=map(version_to, found), next_page_token=token)

    async def GetVolume(self, request: volume_pb2.GetVolumeRequest, context: Any) -> volume_pb2.GetVolumeResponse:
        version, in_use = await self._volumes.get(_own(request.project), request.name, request.version)
        return volume_pb2.GetVolumeResponse(version=version_to(version), in_use=in_use)

    async def DeleteVolume(
        self, request: volume_pb2.DeleteVolumeRequest, context: Any
    ) -> volume_pb2.DeleteVolumeResponse:
        await self._volumes.delete(_own(request.project), request.name, request.version)
        return volume_pb2.DeleteVolumeResponse()


def _own(message: types_pb2.Project) -> Project:
    """The project, in which the caller may act."""
    project = convert.project_from(message)
    require_project(project)
    return project


def version_to(version: VolumeVersion) -> volume_pb2.VolumeVersion:
    return volume_pb2.VolumeVersion(
        project=convert.project_to(version.project),
        name=version.name,
        digest=version.digest,
        repository=version.repository,
        size_bytes=version.size_bytes,
        files=version.files,
        pushed=convert.timestamp(version.pushed),
        latest=version.latest,
    )
