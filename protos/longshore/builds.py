"""The calls of a Project Manager about builds."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from longshore import calls
from longshore.calls import NEVER, Deadline
from longshore.connection import Connection, new_request_id, opener, read_file
from longshore.downloads import download, stream
from longshore.failures import WaitTimeout
from longshore.sources import Source, archive_source, collect
from longshore.uploads import OnProgress, Uploader
from longshore.v1 import build_pb2, build_pb2_grpc, types_pb2

BUILD_ENDED = frozenset(
    (build_pb2.BUILD_STATE_SUCCEEDED, build_pb2.BUILD_STATE_FAILED, build_pb2.BUILD_STATE_CANCELLED)
)
# A number that no line has: asks for nothing but the end of a log.
_NO_LINE = 2**62
# Seconds that the controller may take for a request with an archive, all of which it unpacks first.
_UNPACKING = 3600.0


class BuildCalls(Connection):
    """Builds, their logs, and what can be asked for."""

    @cached_property
    def _builds(self) -> build_pb2_grpc.BuildServiceStub:
        return build_pb2_grpc.BuildServiceStub(self._stub_channel)

    def upload(self, sources: Iterable[Source], on_progress: OnProgress | None = None) -> list[types_pb2.FileEntry]:
        """Afterwards the server holds each content; only what it lacks is sent. Returns the entries in order."""
        listed = list(sources)
        Uploader(self._builds.StatUploads, self._builds.WriteUpload, self._timeout, self._patience).run(
            listed, on_progress
        )
        return [source.entry for source in listed]

    def build(
        self,
        path: Path,
        project: types_pb2.Project,
        *,
        files: Iterable[str] = (),
        archive: Path | None = None,
        secrets: Mapping[str, bytes] | None = None,
        targets: Iterable[str] = (),
        no_cache: bool = False,
        on_progress: OnProgress | None = None,
        request_id: str = "",
    ) -> build_pb2.Build:
        """Uploads `files`, relative to the folder of the deployment.yml at `path`, and starts a build of it.

        `archive` (tar, tar.gz, tar.xz or zip) holds the files in place of `files`. `secrets` has the value of each
        name under `build.secrets`. `targets`: keys of the only targets wanted. `no_cache` builds even where an
        identical request was built before, and runs every step.
        """
        request = build_pb2.CreateBuildRequest(
            project=project, spec=read_file(path), secrets=secrets, targets=targets, no_cache=no_cache
        )
        if archive:
            (entry,) = self.upload([archive_source(archive)], on_progress)
            request.archive = entry.digest
        else:
            request.files.extend(self.upload(collect(path.parent, files), on_progress))
        request.request_id = request_id or new_request_id()
        timeout = max(_UNPACKING, self._timeout) if archive else None
        return self._call(self._builds.CreateBuild, request, build_pb2.CreateBuildResponse, timeout).build

    def get_build(self, build_id: str) -> build_pb2.Build:
        request = build_pb2.GetBuildRequest(id=build_id)
        return self._call(self._builds.GetBuild, request, build_pb2.GetBuildResponse).build

    def list_builds(self, project: types_pb2.Project | None = None) -> Iterator[build_pb2.Build]:
        """Newest first; of all projects that the caller may see where none is given."""
        for page in self._pages(
            self._builds.ListBuilds, build_pb2.ListBuildsRequest(project=project), build_pb2.ListBuildsResponse
        ):
            yield from page.builds

    def cancel_build(self, build_id: str) -> build_pb2.Build:
        """Accepted: the build ends wherever it is; its targets are CANCELLED once nothing of them runs any more.
        Harmless for a build that has ended."""
        request = build_pb2.CancelBuildRequest(id=build_id)
        return self._call(self._builds.CancelBuild, request, build_pb2.CancelBuildResponse).build

    def follow_build(
        self, build_id: str, *, interval: float = 1.0, deadline: Deadline = NEVER
    ) -> Iterator[build_pb2.Build]:
        """The build as it is now, again after each change, and at last when it has ended.

        Looks each `interval` seconds and at the build's end; goes on however long the controller is away. Raises
        WaitTimeout at the deadline.
        """
        build, pauses = self.get_build(build_id), calls.Pauses()
        yield build
        request = build_pb2.GetBuildRequest(id=build_id)
        while build.state not in BUILD_ENDED:
            soon = deadline.within(interval)
            self._await_log_end(build_id, soon)
            if not soon.passed():
                pauses.sleep(soon)
            seen = build
            build = self._call_patiently(self._builds.GetBuild, request, build_pb2.GetBuildResponse, deadline).build
            if build != seen:
                yield build
            if build.state not in BUILD_ENDED:
                deadline.check(f"build {build_id}")

    def wait_for_build(self, build_id: str, *, timeout: float | None = None) -> build_pb2.Build:
        """The build once it has ended, whichever way; `longshore.outcome.built` judges it. Raises WaitTimeout."""
        *_, build = self.follow_build(build_id, interval=60, deadline=Deadline.after(timeout))
        return build

    def _await_log_end(self, build_id: str, deadline: Deadline) -> None:
        with contextlib.suppress(WaitTimeout):
            for _ in self.read_build_log(build_id, from_number=_NO_LINE, follow=True, deadline=deadline):
                pass

    # What is kept of a build.

    def read_build_log(
        self,
        build_id: str,
        *,
        from_number: int = 0,
        follow: bool = False,
        target: str = "",
        deadline: Deadline = NEVER,
    ) -> Iterator[build_pb2.ReadBuildLogResponse]:
        """Lines from a number on; with `follow` until the build has ended. Without gap or repeat.

        `target`: key of the only target wanted.
        """
        request = build_pb2.ReadBuildLogRequest(build_id=build_id, from_number=from_number, target=target)
        open_stream = opener(self._builds.ReadBuildLog, request)
        for patience in self._patiences(request, follow):
            for answer in calls.resuming(open_stream, patience=patience, deadline=deadline):
                request.from_number = answer.line.number + 1
                yield answer

    def download_build_log(self, build_id: str, path: Path) -> int:
        """Afterwards the file holds the whole log as the server keeps it, gzip of JSON lines; returns its bytes."""
        request = build_pb2.DownloadBuildLogRequest(build_id=build_id)
        return download(opener(self._builds.DownloadBuildLog, request), path, self._patience)

    def download_build_context(self, build_id: str, path: Path, *, target: str = "") -> int:
        """Afterwards the file is a tar archive with all that `podman build` needs for this target; returns its
        bytes."""
        request = build_pb2.DownloadBuildContextRequest(build_id=build_id, target=target)
        return download(opener(self._builds.DownloadBuildContext, request), path, self._patience)

    def stream_build_context(self, build_id: str, *, target: str = "") -> Iterator[bytes]:
        """The same archive in pieces, for a reader who can begin only once."""
        request = build_pb2.DownloadBuildContextRequest(build_id=build_id, target=target)
        return stream(opener(self._builds.DownloadBuildContext, request))

    def get_build_materials(self, build_id: str, *, target: str = "") -> bytes:
        """The bill of materials of a target: CycloneDX in JSON. `target` may be empty where there is only one."""
        request = build_pb2.GetBuildMaterialsRequest(build_id=build_id, target=target)
        return self._call(self._builds.GetBuildMaterials, request, build_pb2.GetBuildMaterialsResponse).document

    def list_images(self, project: types_pb2.Project | None = None) -> Iterator[build_pb2.BuiltImage]:
        """Artifacts that are still in the registry, newest first."""
        request = build_pb2.ListImagesRequest(project=project)
        for page in self._pages(self._builds.ListImages, request, build_pb2.ListImagesResponse):
            yield from page.images

    # What can be asked for.

    def render_build(self, path: Path, project: types_pb2.Project) -> list[build_pb2.RenderedTarget]:
        """What a build of the deployment.yml at `path` would do, target by target; nothing is uploaded or stored."""
        request = build_pb2.RenderBuildRequest(project=project, spec=read_file(path))
        return list(self._call(self._builds.RenderBuild, request, build_pb2.RenderBuildResponse).targets)

    def list_target_profiles(self) -> list[build_pb2.TargetProfile]:
        request = build_pb2.ListTargetProfilesRequest()
        return list(self._call(self._builds.ListTargetProfiles, request, build_pb2.ListTargetProfilesResponse).profiles)

    def list_runtimes(self) -> list[build_pb2.Runtime]:
        request = build_pb2.ListRuntimesRequest()
        return list(self._call(self._builds.ListRuntimes, request, build_pb2.ListRuntimesResponse).runtimes)

    def get_build_form(self) -> list[build_pb2.FormField]:
        """Every field of a deployment.yml, in the order in which a person would fill them in."""
        request = build_pb2.GetBuildFormRequest()
        return list(self._call(self._builds.GetBuildForm, request, build_pb2.GetBuildFormResponse).fields)

    def list_builder_hosts(self) -> list[build_pb2.BuilderHost]:
        """Where builds run. For administrators."""
        request = build_pb2.ListBuilderHostsRequest()
        return list(self._call(self._builds.ListBuilderHosts, request, build_pb2.ListBuilderHostsResponse).hosts)
