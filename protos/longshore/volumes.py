"""The calls of a Project Manager about project volumes."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from longshore.builds import BuildCalls
from longshore.sources import Source, collect
from longshore.uploads import OnProgress
from longshore.v1 import types_pb2, volume_pb2, volume_pb2_grpc

# Seconds that the controller may take to bring what was uploaded into the registry.
_PUSHING = 3600.0


class VolumeCalls(BuildCalls):
    """Models and data that devices mount, apart from images."""

    @cached_property
    def _volumes(self) -> volume_pb2_grpc.VolumeServiceStub:
        return volume_pb2_grpc.VolumeServiceStub(self._stub_channel)

    def push_volume(
        self, name: str, project: types_pb2.Project, paths: Iterable[Path], *, on_progress: OnProgress | None = None
    ) -> volume_pb2.PushVolumeResponse:
        """Makes a version of the volume, which is its latest then; returns once it is durable.

        A file lies in the volume under its own name, those of a folder as they lie in the folder. Only what the server
        lacks is sent; a transfer that broke goes on where it was.
        """
        sources = [source for path in paths for source in volume_sources(path)]
        files = self.upload(sources, on_progress)
        request = volume_pb2.PushVolumeRequest(project=project, name=name, files=files)
        return self._call(self._volumes.PushVolume, request, volume_pb2.PushVolumeResponse, _PUSHING)

    def list_volumes(
        self, project: types_pb2.Project | None = None, *, name: str = ""
    ) -> Iterator[volume_pb2.VolumeVersion]:
        """Versions, the one that was pushed last first; of all volumes, or of the named one."""
        request = volume_pb2.ListVolumesRequest(project=project, name=name)
        for page in self._pages(self._volumes.ListVolumes, request, volume_pb2.ListVolumesResponse):
            yield from page.versions

    def get_volume(self, project: types_pb2.Project, name: str, version: str = "") -> volume_pb2.GetVolumeResponse:
        """The version of this digest, or the latest one."""
        request = volume_pb2.GetVolumeRequest(project=project, name=name, version=version)
        return self._call(self._volumes.GetVolume, request, volume_pb2.GetVolumeResponse)

    def delete_volume(self, project: types_pb2.Project, name: str, version: str = "") -> None:
        """Forgets this version, or the whole volume."""
        request = volume_pb2.DeleteVolumeRequest(project=project, name=name, version=version)
        self._call(self._volumes.DeleteVolume, request, volume_pb2.DeleteVolumeResponse)


def volume_sources(path: Path) -> list[Source]:
    """What a path brings into a volume. Raises LongshoreError."""
    if path.is_dir():
        return collect(path, ["."], what="volume")
    return collect(path.parent, [path.name], what="volume")
