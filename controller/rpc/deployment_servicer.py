"""DeploymentService."""

from collections.abc import AsyncIterator
from typing import Any

from controller.deployments.history import Comparison, HistoryService, Undo
from controller.deployments.model import Deployment
from controller.deployments.service import DeploymentService, Request
from controller.rpc import convert
from controller.rpc.access import require_project, require_visible, visible_user
from controller.rpc.instance_sessions import InstanceSessions
from controller.rpc.interceptor import caller
from controller.rpc.lists import deployment_filter, deployment_to, instance_filter
from controller.rpc.sessions import Sessions
from controller.rpc.spec_warnings import spec_warnings
from longshore.errors import Reason
from longshore.v1 import deployment_pb2, deployment_pb2_grpc


class DeploymentServicer(deployment_pb2_grpc.DeploymentServiceServicer):
    def __init__(self, deployments: DeploymentService, history: HistoryService, sessions: Sessions) -> None:
        self._deployments = deployments
        self._history = history
        self._instances = InstanceSessions(deployments, sessions)

    async def ApplyDeployment(
        self, request: deployment_pb2.ApplyDeploymentRequest, context: Any
    ) -> deployment_pb2.ApplyDeploymentResponse:
        project = convert.project_from(request.project)
        require_project(project)
        files = convert.files_from(list(request.files))
        known = not visible_user()
        wanted = Request(
            project, request.spec, files, request.build_id, convert.request_id_from(request), known,
            convert.secrets_from(request.secrets), convert.secrets_from(request.build_secrets), caller.get().name,
        )  # fmt: skip
        applied = await self._deployments.apply(wanted)
        message = await self._message(applied.deployment)
        return deployment_pb2.ApplyDeploymentResponse(
            deployment=message, events_from=applied.events_from, warnings=await spec_warnings(request.spec)
        )

    async def GetDeployment(
        self, request: deployment_pb2.GetDeploymentRequest, context: Any
    ) -> deployment_pb2.GetDeploymentResponse:
        if request.id:
            deployment = await self._visible(request.id)
        else:
            project = convert.project_from(request.project)
            require_project(project)
            deployment = await self._deployments.by_name(project, request.name)
        view = await self._deployments.view(deployment)
        return deployment_pb2.GetDeploymentResponse(
            deployment=deployment_to(view), instances=map(convert.instance_to, view.placements)
        )

    async def ListDeployments(
        self, request: deployment_pb2.ListDeploymentsRequest, context: Any
    ) -> deployment_pb2.ListDeploymentsResponse:
        wanted = deployment_filter(request, visible_user())
        found, token = await self._deployments.page(wanted, convert.page_from(request.page))
        return deployment_pb2.ListDeploymentsResponse(deployments=map(deployment_to, found), next_page_token=token)

    async def ListInstances(
        self, request: deployment_pb2.ListInstancesRequest, context: Any
    ) -> deployment_pb2.ListInstancesResponse:
        wanted = instance_filter(request, visible_user())
        found, token = await self._deployments.instances(wanted, convert.page_from(request.page))
        return deployment_pb2.ListInstancesResponse(instances=map(convert.instance_to, found), next_page_token=token)

    async def StopDeployment(
        self, request: deployment_pb2.StopDeploymentRequest, context: Any
    ) -> deployment_pb2.StopDeploymentResponse:
        await self._visible(request.id)
        stopped = await self._deployments.stop(request.id)
        return deployment_pb2.StopDeploymentResponse(deployment=await self._message(stopped))

    async def DeleteDeployment(
        self, request: deployment_pb2.DeleteDeploymentRequest, context: Any
    ) -> deployment_pb2.DeleteDeploymentResponse:
        await self._visible(request.id)
        deleted = await self._deployments.delete(request.id)
        return deployment_pb2.DeleteDeploymentResponse(deployment=await self._message(deleted))

    async def ListRevisions(
        self, request: deployment_pb2.ListRevisionsRequest, context: Any
    ) -> deployment_pb2.ListRevisionsResponse:
        await self._visible(request.id)
        found, token = await self._history.page(request.id, convert.page_from(request.page))
        return deployment_pb2.ListRevisionsResponse(revisions=map(convert.revision_to, found), next_page_token=token)

    async def DiffDeployment(
        self, request: deployment_pb2.DiffDeploymentRequest, context: Any
    ) -> deployment_pb2.DiffDeploymentResponse:
        await self._visible(request.id)
        files = convert.files_from(list(request.files))
        found = await self._history.compare(
            Comparison(request.id, request.from_revision, request.to_revision, request.spec, files)
        )
        return deployment_pb2.DiffDeploymentResponse(
            from_revision=found.from_revision,
            to_revision=found.to_revision,
            changes=map(convert.change_to, found.fields),
        )

    async def UndoDeployment(
        self, request: deployment_pb2.UndoDeploymentRequest, context: Any
    ) -> deployment_pb2.UndoDeploymentResponse:
        await self._visible(request.id)
        wanted = Undo(
            request.id, request.to_revision, convert.request_id_from(request), caller.get().name,
            convert.secrets_from(request.secrets),
        )  # fmt: skip
        undone = await self._history.undo(wanted)
        message = await self._message(undone.deployment)
        return deployment_pb2.UndoDeploymentResponse(deployment=message, events_from=undone.events_from)

    async def ReadInstanceLog(
        self, request: deployment_pb2.ReadInstanceLogRequest, context: Any
    ) -> AsyncIterator[deployment_pb2.ReadInstanceLogResponse]:
        async for response in self._instances.read_log(request):
            yield response

    async def Exec(
        self, request_iterator: AsyncIterator[deployment_pb2.ExecRequest], context: Any
    ) -> AsyncIterator[deployment_pb2.ExecResponse]:
        async for response in self._instances.exec(request_iterator):
            yield response

    async def PortForward(
        self, request_iterator: AsyncIterator[deployment_pb2.PortForwardRequest], context: Any
    ) -> AsyncIterator[deployment_pb2.PortForwardResponse]:
        async for response in self._instances.port_forward(request_iterator):
            yield response

    async def _visible(self, deployment_id: str) -> Deployment:
        deployment = await self._deployments.get(deployment_id)
        require_visible(deployment.project.user_id, Reason.NO_SUCH_DEPLOYMENT, f"no deployment {deployment_id}")
        return deployment

    async def _message(self, deployment: Deployment) -> deployment_pb2.Deployment:
        return deployment_to(await self._deployments.view(deployment))
