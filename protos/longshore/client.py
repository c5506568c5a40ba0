"""The Python client of a Project Manager: one file and its sources in, true states and numbered events out.

    with Client("controller.example:8443", token, ca_certificate=Path("ca.pem").read_text()) as client:
        applied = client.deploy(Path("deployment.yml"), project("alice", "vision"), files=["server.py", "model"])
        client.wait_until_ready(applied.deployment.id, applied.deployment.revision, after=applied.events_from)

The client reads no YAML: `files` are the names under `build.files` of the deployment.yml. Calls that lose the
controller are repeated with the same request id, so that nothing is made twice; streams go on where they broke.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from types import TracebackType

from google.protobuf.timestamp_pb2 import Timestamp

from longshore import calls, outcome
from longshore.calls import NEVER, Deadline
from longshore.connection import new_request_id, opener, read_file
from longshore.failures import Failed, LongshoreError
from longshore.instance_sessions import ExecSession, OnFailure, PortForwarder
from longshore.logs import LogCursor
from longshore.sources import collect
from longshore.uploads import OnProgress
from longshore.v1 import (
    deployment_pb2,
    deployment_pb2_grpc,
    device_pb2,
    device_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    types_pb2,
)
from longshore.volumes import VolumeCalls

Answer = deployment_pb2.GetDeploymentResponse
TimeRange = deployment_pb2.TimeRange
OnAnswer = Callable[[Answer], None]

# The server sends a heartbeat each 15 s.
EVENT_SILENCE = 45.0


def project(user_id: str, project_id: str) -> types_pb2.Project:
    """Who owns a build or a deployment."""
    return types_pb2.Project(user_id=user_id, project_id=project_id)


class Client(VolumeCalls):
    """A connection to one controller; safe to use from several threads.

    `timeout` bounds each single call, `patience` for how long an unreachable controller is tried again (both in
    seconds); `page_size` is how many entries a list fetches at a time, 0 leaving it to the server. Every method raises
    LongshoreError; streams are iterators, and leaving one ends its call.
    """

    @cached_property
    def _deployments(self) -> deployment_pb2_grpc.DeploymentServiceStub:
        return deployment_pb2_grpc.DeploymentServiceStub(self._stub_channel)

    @cached_property
    def _devices(self) -> device_pb2_grpc.DeviceServiceStub:
        return device_pb2_grpc.DeviceServiceStub(self._stub_channel)

    @cached_property
    def _events(self) -> event_pb2_grpc.EventServiceStub:
        return event_pb2_grpc.EventServiceStub(self._stub_channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    # Deployments.

    def deploy(
        self,
        path: Path,
        project: types_pb2.Project,
        *,
        files: Iterable[str] = (),
        build_id: str = "",
        secrets: Mapping[str, bytes] | None = None,
        build_secrets: Mapping[str, bytes] | None = None,
        on_progress: OnProgress | None = None,
        request_id: str = "",
        spec: bytes | None = None,
    ) -> deployment_pb2.ApplyDeploymentResponse:
        """Makes the deployment that the file describes, or a new revision of it; returns once it is accepted.

        `build_id` deploys what that build made, instead of uploading and building. `secrets` has values of names under
        `deploy.secrets`; one that is left out keeps the value of the revision before. `build_secrets` has the value of
        each name under `build.secrets`; a build that was made before has had them.
        `spec` is what the file says, where that is not what is to be sent of it.
        """
        entries = [] if build_id else self.upload(collect(path.parent, files), on_progress)
        request = deployment_pb2.ApplyDeploymentRequest(
            project=project,
            spec=read_file(path) if spec is None else spec,
            files=entries,
            build_id=build_id,
            request_id=request_id or new_request_id(),
            secrets=secrets,
            build_secrets=build_secrets,
        )
        return self._call(self._deployments.ApplyDeployment, request, deployment_pb2.ApplyDeploymentResponse)

    def get_deployment(self, deployment_id: str) -> Answer:
        request = deployment_pb2.GetDeploymentRequest(id=deployment_id)
        return self._call(self._deployments.GetDeployment, request, Answer)

    def find_deployment(self, project: types_pb2.Project, name: str) -> Answer:
        """The one with this name that is not deleted."""
        request = deployment_pb2.GetDeploymentRequest(project=project, name=name)
        return self._call(self._deployments.GetDeployment, request, Answer)

    def list_deployments(
        self,
        project: types_pb2.Project | None = None,
        *,
        include_deleted: bool = False,
        user_id: str = "",
        device: str = "",
        profile: str = "",
        labels: Mapping[str, str] | None = None,
        states: Iterable[deployment_pb2.DeploymentState.ValueType] = (),
        created: TimeRange | None = None,
        since: TimeRange | None = None,
    ) -> Iterator[deployment_pb2.Deployment]:
        """Newest first; every filter that is given must match. `states` alone decide about what is deleted."""
        request = deployment_pb2.ListDeploymentsRequest(
            project=project, include_deleted=include_deleted, user_id=user_id, device=device, profile=profile,
            labels=labels, states=states, created=created, since=since,
        )  # fmt: skip
        for page in self._pages(self._deployments.ListDeployments, request, deployment_pb2.ListDeploymentsResponse):
            yield from page.deployments

    def list_instances(
        self,
        project: types_pb2.Project | None = None,
        *,
        deployment_id: str = "",
        device_id: str = "",
        user_id: str = "",
        profile: str = "",
        labels: Mapping[str, str] | None = None,
        states: Iterable[types_pb2.InstanceState.ValueType] = (),
        since: TimeRange | None = None,
    ) -> Iterator[deployment_pb2.Instance]:
        """What runs where; every filter that is given must match. `device_id`: id or name."""
        request = deployment_pb2.ListInstancesRequest(
            project=project, deployment_id=deployment_id, device_id=device_id, user_id=user_id, profile=profile,
            labels=labels, states=states, since=since,
        )  # fmt: skip
        for page in self._pages(self._deployments.ListInstances, request, deployment_pb2.ListInstancesResponse):
            yield from page.instances

    def list_revisions(self, deployment_id: str) -> Iterator[deployment_pb2.Revision]:
        """Newest first: who made each, when, and what it changed; also of one that is deleted."""
        request = deployment_pb2.ListRevisionsRequest(id=deployment_id)
        for page in self._pages(self._deployments.ListRevisions, request, deployment_pb2.ListRevisionsResponse):
            yield from page.revisions

    def diff_revisions(
        self, deployment_id: str, *, from_revision: int = 0, to_revision: int = 0
    ) -> deployment_pb2.DiffDeploymentResponse:
        """What differs between two revisions; those that are not given are the present one and the one before."""
        request = deployment_pb2.DiffDeploymentRequest(
            id=deployment_id, from_revision=from_revision, to_revision=to_revision
        )
        return self._call(self._deployments.DiffDeployment, request, deployment_pb2.DiffDeploymentResponse)

    def diff_with_file(
        self, deployment_id: str, path: Path, *, files: Iterable[str] = (), from_revision: int = 0
    ) -> deployment_pb2.DiffDeploymentResponse:
        """What a deployment.yml and its files would change; nothing is uploaded. Without `files` only its fields are
        compared."""
        request = deployment_pb2.DiffDeploymentRequest(
            id=deployment_id,
            from_revision=from_revision,
            spec=read_file(path),
            files=[source.entry for source in collect(path.parent, files)],
        )
        return self._call(self._deployments.DiffDeployment, request, deployment_pb2.DiffDeploymentResponse)

    def undo(
        self,
        deployment_id: str,
        to_revision: int = 0,
        *,
        secrets: Mapping[str, bytes] | None = None,
        request_id: str = "",
    ) -> deployment_pb2.UndoDeploymentResponse:
        """Makes a new revision that is equal to an earlier one: to this one, or else to the newest that can be run."""
        request = deployment_pb2.UndoDeploymentRequest(
            id=deployment_id, to_revision=to_revision, request_id=request_id or new_request_id(), secrets=secrets
        )
        return self._call(self._deployments.UndoDeployment, request, deployment_pb2.UndoDeploymentResponse)

    def stop(self, deployment_id: str) -> deployment_pb2.Deployment:
        """Accepted: devices stop it and keep what they fetched."""
        request = deployment_pb2.StopDeploymentRequest(id=deployment_id)
        return self._call(self._deployments.StopDeployment, request, deployment_pb2.StopDeploymentResponse).deployment

    def delete(self, deployment_id: str) -> deployment_pb2.Deployment:
        """Accepted: devices stop and remove it; its name is free at once."""
        request = deployment_pb2.DeleteDeploymentRequest(id=deployment_id)
        return self._call(
            self._deployments.DeleteDeployment, request, deployment_pb2.DeleteDeploymentResponse
        ).deployment

    def wait_until_ready(
        self,
        deployment_id: str,
        revision: int,
        *,
        after: int = 0,
        timeout: float | None = None,
        on_answer: OnAnswer | None = None,
    ) -> Answer:
        """The deployment once this revision answers on every device that should run it.

        Raises Failed where it cannot become so: its build or an instance failed, an instance failed three times in a
        row or went back to the revision before, or the revision was replaced or stopped. Raises WaitTimeout.
        """
        return self.wait_until(
            deployment_id,
            lambda answer: outcome.ready(answer, revision),
            after=after,
            timeout=timeout,
            on_answer=on_answer,
        )

    def wait_until(
        self,
        deployment_id: str,
        judge: outcome.Judge,
        *,
        after: int = 0,
        timeout: float | None = None,
        on_answer: OnAnswer | None = None,
    ) -> Answer:
        """The deployment once `judge` has an outcome for it: it is asked at first and after each event past `after`.

        `on_answer` sees each answer before it is judged. Raises Failed for a bad outcome, and WaitTimeout.
        """
        deadline = Deadline.after(timeout)
        for answer in self.follow_deployment(deployment_id, after=after, deadline=deadline):
            if on_answer:
                on_answer(answer)
            end = judge(answer)
            if end and end.ok:
                return answer
            if end:
                raise Failed(end.reason, end.message, end.lines)
        raise LongshoreError("UNAVAILABLE", "the controller ended the event stream")

    def follow_deployment(self, deployment_id: str, *, after: int = 0, deadline: Deadline = NEVER) -> Iterator[Answer]:
        """The deployment as it is now, and again after each event of it past `after`, or past now where that is 0.

        Goes on however long the controller is away. Raises WaitTimeout at the deadline.
        """
        answer = self.get_deployment(deployment_id)
        yield answer
        request = event_pb2.WatchEventsRequest(
            project=answer.deployment.project, after_number=after, deployment_id=deployment_id
        )
        for _ in self._moments(request, deadline):
            yield self._get_patiently(deployment_id, deadline)

    def follow_device(self, device: str, *, deadline: Deadline = NEVER) -> Iterator[device_pb2.Device]:
        """The device, by id or name, as it is now, and again after each event of it.

        Goes on however long the controller is away. Raises WaitTimeout at the deadline.
        """
        found = self.get_device(device)
        yield found
        request = device_pb2.GetDeviceRequest(device=found.id)
        for _ in self._moments(event_pb2.WatchEventsRequest(device_id=found.id), deadline):
            answer = self._call_patiently(self._devices.GetDevice, request, device_pb2.GetDeviceResponse, deadline)
            yield answer.device

    def _moments(self, request: event_pb2.WatchEventsRequest, deadline: Deadline) -> Iterator[None]:
        """When to look again: at once where the request does not say after which number, so that nothing is missed
        between the first look and the events; then at each event, and now and then."""
        if not request.after_number:
            for _ in self._event_answers(request, False, deadline, reached=True):
                pass
            yield
        for _ in self._event_answers(request, True, deadline, reached=True):
            yield

    def _get_patiently(self, deployment_id: str, deadline: Deadline) -> Answer:
        request = deployment_pb2.GetDeploymentRequest(id=deployment_id)
        return self._call_patiently(self._deployments.GetDeployment, request, Answer, deadline)

    def read_instance_log(
        self,
        deployment_id: str,
        *,
        device_id: str = "",
        tail: int = 0,
        since: Timestamp | None = None,
        follow: bool = False,
        previous: bool = False,
    ) -> Iterator[types_pb2.LogLine]:
        """The output of one instance, read on its device, without gap or repeat across lost connections; or of the
        `previous` one, as far as the device kept it."""
        request = deployment_pb2.ReadInstanceLogRequest(
            deployment_id=deployment_id, device_id=device_id, tail=tail, since=since, follow=follow, previous=previous
        )
        cursor = LogCursor(request)
        open_stream = opener(self._deployments.ReadInstanceLog, request)
        patience = None if follow else self._patience
        for answer in calls.resuming(cursor.opening(open_stream), patience=patience):
            if cursor.is_new(answer.line):
                yield answer.line

    def exec(
        self,
        deployment_id: str,
        command: Iterable[str],
        *,
        device_id: str = "",
        stdin: bool = False,
        terminal: tuple[int, int] | None = None,
    ) -> ExecSession:
        """Runs a command inside an instance, in a terminal of so many rows and columns where they are given; `stdin`
        says that input will be written. What is refused is raised when the session is read."""
        start = deployment_pb2.ExecStart(deployment_id=deployment_id, device_id=device_id, command=command)
        if terminal is not None:
            start.tty = True
            start.size.rows, start.size.columns = terminal
        return ExecSession(self._deployments.Exec, start, stdin=stdin)

    def port_forward(
        self,
        deployment_id: str,
        port: str = "",
        *,
        device_id: str = "",
        host: str = "127.0.0.1",
        local_port: int = 0,
        on_failure: OnFailure | None = None,
    ) -> PortForwarder:
        """Listens on a local port (0: any that is free) and carries its connections to a port of an instance, by its
        name in the spec, which may be empty where there is only one."""
        start = deployment_pb2.PortForwardStart(deployment_id=deployment_id, device_id=device_id, port=port)
        return PortForwarder(self._deployments.PortForward, start, host, local_port, on_failure)

    # Events.

    def watch_events(
        self,
        project: types_pb2.Project | None,
        *,
        after: int = 0,
        follow: bool = False,
        deployment_id: str = "",
        build_id: str = "",
        device_id: str = "",
        kinds: Iterable[event_pb2.EventKind.ValueType] = (),
        states: Iterable[str] = (),
        deadline: Deadline = NEVER,
    ) -> Iterator[event_pb2.Event]:
        """Events after a number without gap or repeat, also across lost connections; `project` None: device events.

        With `follow` it goes on until the reader leaves, however long the controller is away.
        """
        request = event_pb2.WatchEventsRequest(
            project=project, after_number=after, deployment_id=deployment_id, build_id=build_id, device_id=device_id,
            kinds=kinds, states=states,
        )  # fmt: skip
        for answer in self._event_answers(request, follow, deadline):
            if answer.HasField("event"):
                yield answer.event

    # Devices.

    def create_enroll_token(
        self,
        *,
        device_name: str = "",
        labels: Mapping[str, str] | None = None,
        profile: str = "",
        lifetime: timedelta | None = None,
    ) -> device_pb2.CreateEnrollTokenResponse:
        """A one-time token with which a machine becomes a device."""
        request = device_pb2.CreateEnrollTokenRequest(device_name=device_name, labels=labels, profile=profile)
        if lifetime is not None:
            request.lifetime.FromTimedelta(lifetime)
        return self._call(self._devices.CreateEnrollToken, request, device_pb2.CreateEnrollTokenResponse)

    def get_device(self, device: str) -> device_pb2.Device:
        """By id or name."""
        request = device_pb2.GetDeviceRequest(device=device)
        return self._call(self._devices.GetDevice, request, device_pb2.GetDeviceResponse).device

    def list_devices(self, labels: Mapping[str, str] | None = None, profile: str = "") -> Iterator[device_pb2.Device]:
        """Devices that carry all of these labels, of this profile."""
        request = device_pb2.ListDevicesRequest(labels=labels, profile=profile)
        for page in self._pages(self._devices.ListDevices, request, device_pb2.ListDevicesResponse):
            yield from page.devices

    def label_device(
        self, device: str, labels: Mapping[str, str] | None = None, *, remove: Iterable[str] = ()
    ) -> device_pb2.Device:
        """By id or name: sets labels and removes others; deployments move to where they belong then."""
        request = device_pb2.LabelDeviceRequest(device=device, labels=labels, remove=remove)
        return self._call(self._devices.LabelDevice, request, device_pb2.LabelDeviceResponse).device

    def cordon_device(self, device: str, reason: str = "") -> device_pb2.Device:
        """Nothing new is placed there; what runs there runs on."""
        request = device_pb2.CordonDeviceRequest(device=device, reason=reason)
        return self._call(self._devices.CordonDevice, request, device_pb2.CordonDeviceResponse).device

    def drain_device(self, device: str, reason: str = "") -> device_pb2.Device:
        """Accepted: the device stops what it runs, keeps what it fetched, and gets nothing new; it is DRAINED once it
        has said so."""
        request = device_pb2.DrainDeviceRequest(device=device, reason=reason)
        return self._call(self._devices.DrainDevice, request, device_pb2.DrainDeviceResponse).device

    def uncordon_device(self, device: str) -> device_pb2.Device:
        """Ends cordon and drain: what belongs there comes (back)."""
        request = device_pb2.UncordonDeviceRequest(device=device)
        return self._call(self._devices.UncordonDevice, request, device_pb2.UncordonDeviceResponse).device

    def delete_device(self, device: str) -> None:
        """By id or name: it is no device any more; what runs there runs on until the agent is told to leave."""
        request = device_pb2.DeleteDeviceRequest(device=device)
        self._call(self._devices.DeleteDevice, request, device_pb2.DeleteDeviceResponse)

    def _event_answers(
        self, request: event_pb2.WatchEventsRequest, follow: bool, deadline: Deadline, *, reached: bool = False
    ) -> Iterator[event_pb2.WatchEventsResponse]:
        open_stream = opener(self._events.WatchEvents, request)
        for patience in self._patiences(request, follow, reached):
            for answer in calls.resuming(open_stream, patience=patience, deadline=deadline, silence=EVENT_SILENCE):
                if answer.HasField("event"):
                    request.after_number = answer.event.number
                elif answer.searched_number:
                    # What was not for this call need not be there any more when it goes on.
                    request.after_number = answer.searched_number
                yield answer
