"""What each RPC asks of its caller. One table; a test holds it equal to the contract."""

from enum import Enum


class Permission(Enum):
    """ANYONE needs no credentials. USER: a bearer token; a member sees the projects of its own user id only, which
    servicers check on the objects. ADMIN: a bearer token of an administrator. DEVICE: a client certificate."""

    ANYONE = "anyone"
    USER = "user"
    ADMIN = "admin"
    DEVICE = "device"


PERMISSIONS: dict[str, Permission] = {
    "/longshore.v1.BuildService/StatUploads": Permission.USER,
    "/longshore.v1.BuildService/WriteUpload": Permission.USER,
    "/longshore.v1.BuildService/CreateBuild": Permission.USER,
    "/longshore.v1.BuildService/GetBuild": Permission.USER,
    "/longshore.v1.BuildService/ListBuilds": Permission.USER,
    "/longshore.v1.BuildService/CancelBuild": Permission.USER,
    "/longshore.v1.BuildService/ReadBuildLog": Permission.USER,
    "/longshore.v1.BuildService/DownloadBuildLog": Permission.USER,
    "/longshore.v1.BuildService/RenderBuild": Permission.USER,
    "/longshore.v1.BuildService/DownloadBuildContext": Permission.USER,
    "/longshore.v1.BuildService/GetBuildMaterials": Permission.USER,
    "/longshore.v1.BuildService/ListImages": Permission.USER,
    "/longshore.v1.BuildService/ListTargetProfiles": Permission.USER,
    "/longshore.v1.BuildService/ListRuntimes": Permission.USER,
    "/longshore.v1.BuildService/GetBuildForm": Permission.USER,
    "/longshore.v1.BuildService/ListBuilderHosts": Permission.ADMIN,
    "/longshore.v1.DeploymentService/ApplyDeployment": Permission.USER,
    "/longshore.v1.DeploymentService/GetDeployment": Permission.USER,
    "/longshore.v1.DeploymentService/ListDeployments": Permission.USER,
    "/longshore.v1.DeploymentService/ListInstances": Permission.USER,
    "/longshore.v1.DeploymentService/StopDeployment": Permission.USER,
    "/longshore.v1.DeploymentService/DeleteDeployment": Permission.USER,
    "/longshore.v1.DeploymentService/ListRevisions": Permission.USER,
    "/longshore.v1.DeploymentService/DiffDeployment": Permission.USER,
    "/longshore.v1.DeploymentService/UndoDeployment": Permission.USER,
    "/longshore.v1.DeploymentService/ReadInstanceLog": Permission.USER,
    "/longshore.v1.DeploymentService/Exec": Permission.USER,
    "/longshore.v1.DeploymentService/PortForward": Permission.USER,
    "/longshore.v1.VolumeService/PushVolume": Permission.USER,
    "/longshore.v1.VolumeService/ListVolumes": Permission.USER,
    "/longshore.v1.VolumeService/GetVolume": Permission.USER,
    "/longshore.v1.VolumeService/DeleteVolume": Permission.USER,
    "/longshore.v1.DeviceService/CreateEnrollToken": Permission.ADMIN,
    "/longshore.v1.DeviceService/GetDevice": Permission.ADMIN,
    "/longshore.v1.DeviceService/ListDevices": Permission.ADMIN,
    "/longshore.v1.DeviceService/DeleteDevice": Permission.ADMIN,
    "/longshore.v1.DeviceService/LabelDevice": Permission.ADMIN,
    "/longshore.v1.DeviceService/CordonDevice": Permission.ADMIN,
    "/longshore.v1.DeviceService/DrainDevice": Permission.ADMIN,
    "/longshore.v1.DeviceService/UncordonDevice": Permission.ADMIN,
    "/longshore.v1.EventService/WatchEvents": Permission.USER,
    "/longshore.v1.AgentService/Enroll": Permission.ANYONE,
    "/longshore.v1.AgentService/GetDesiredState": Permission.DEVICE,
    "/longshore.v1.AgentService/RenewCertificate": Permission.DEVICE,
    "/longshore.v1.AgentService/GetRegistryCredential": Permission.DEVICE,
    "/longshore.v1.AgentService/Channel": Permission.DEVICE,
    "/longshore.v1.AgentService/Leave": Permission.DEVICE,
    "/grpc.health.v1.Health/Check": Permission.ANYONE,
    "/grpc.health.v1.Health/Watch": Permission.ANYONE,
    "/grpc.health.v1.Health/List": Permission.ANYONE,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Permission.USER,
}
