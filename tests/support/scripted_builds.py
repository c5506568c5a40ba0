"""A build service whose answers a test writes: for what a real one does too seldom, or too quickly to be seen."""

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc

from controller.cli.context import Context, save_context
from controller.pki import CertificateAuthority
from longshore.client import Client
from longshore.v1 import build_pb2, build_pb2_grpc, types_pb2

State = build_pb2.BuildState
_Servicer: Any = build_pb2_grpc.BuildServiceServicer


@dataclass
class Script(_Servicer):  # type: ignore[misc]  # its types are those of the asyncio server, and this one is not
    """`states` are what GetBuild answers, one after the other, the last one for ever; `requests` is what came."""

    states: list[build_pb2.Build] = field(default_factory=list)
    lines: list[build_pb2.ReadBuildLogResponse] = field(default_factory=list)
    documents: dict[str, bytes] = field(default_factory=dict)
    rendered: list[build_pb2.RenderedTarget] = field(default_factory=list)
    profiles: list[build_pb2.TargetProfile] = field(default_factory=list)
    # How many of the next downloads break in the middle.
    breaks: int = 0
    requests: list[Any] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def now(self) -> build_pb2.Build:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def request(self, kind: type[Any]) -> Any:
        """The last request of this kind."""
        return next(request for request in reversed(self.requests) if isinstance(request, kind))

    def StatUploads(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        held = [build_pb2.UploadState(digest=digest, complete=True) for digest in request.digests]
        return build_pb2.StatUploadsResponse(uploads=held)

    def CreateBuild(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        return build_pb2.CreateBuildResponse(build=self.states[0])

    def GetBuild(self, request: Any, context: Any) -> Any:
        return build_pb2.GetBuildResponse(build=self.now)

    def ListBuilds(self, request: Any, context: Any) -> Any:
        return build_pb2.ListBuildsResponse(builds=self.states)

    def CancelBuild(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.cancelled.set()
        return build_pb2.CancelBuildResponse(build=self.states[0])

    def ReadBuildLog(self, request: Any, context: Any) -> Iterator[Any]:
        self.requests.append(request)
        for line in self.lines:
            if line.line.number >= request.from_number and request.target in ("", line.target):
                yield line

    def DownloadBuildLog(self, request: Any, context: Any) -> Iterator[Any]:
        for data in self._document("log", context):
            yield build_pb2.DownloadBuildLogResponse(data=data)

    def DownloadBuildContext(self, request: Any, context: Any) -> Iterator[Any]:
        self.requests.append(request)
        for data in self._document("context", context):
            yield build_pb2.DownloadBuildContextResponse(data=data)

    def _document(self, name: str, context: Any) -> Iterator[bytes]:
        document = self.documents[name]
        half = len(document) // 2
        yield document[:half]
        if self.breaks:
            self.breaks -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "scripted")
        yield document[half:]

    def GetBuildMaterials(self, request: Any, context: Any) -> Any:
        return build_pb2.GetBuildMaterialsResponse(document=self.documents["materials"])

    def RenderBuild(self, request: Any, context: Any) -> Any:
        return build_pb2.RenderBuildResponse(targets=self.rendered)

    def ListTargetProfiles(self, request: Any, context: Any) -> Any:
        return build_pb2.ListTargetProfilesResponse(profiles=self.profiles)


@dataclass(frozen=True)
class Scripted:
    """A script that is served, and a client of it."""

    script: Script
    client: Client
    context_file: Path


@contextmanager
def scripted_builds(folder: Path) -> Iterator[Scripted]:
    """Served by TLS while the block lasts."""
    authority = CertificateAuthority.create(folder)
    pair = authority.issue_server(["127.0.0.1"])
    script = Script()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    build_pb2_grpc.add_BuildServiceServicer_to_server(script, cast(Any, server))
    credentials = grpc.ssl_server_credentials([(pair.key_pem.encode(), pair.certificate_pem.encode())])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    context_file = folder / "context.yaml"
    save_context(context_file, Context(f"127.0.0.1:{port}", "token", authority.certificate_pem))
    try:
        with Client(f"127.0.0.1:{port}", "token", authority.certificate_pem, patience=10) as client:
            yield Scripted(script, client, context_file)
    finally:
        server.stop(None).wait()


def build(state: str, *targets: build_pb2.BuildTarget, **fields: Any) -> build_pb2.Build:
    """A build in this state, of these targets."""
    return build_pb2.Build(id="b1", name="digits", state=State.Value(f"BUILD_STATE_{state}"), targets=targets, **fields)


def target(key: str, state: str, **fields: Any) -> build_pb2.BuildTarget:
    profile = key.partition(".")[0]
    return build_pb2.BuildTarget(key=key, profile=profile, state=State.Value(f"BUILD_STATE_{state}"), **fields)


def line(number: int, text: str, key: str = "x86-cpu") -> build_pb2.ReadBuildLogResponse:
    return build_pb2.ReadBuildLogResponse(target=key, line=types_pb2.LogLine(number=number, text=text))
