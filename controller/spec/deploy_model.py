"""The part `deploy` of a `deployment.yml`: how the artifact runs on a device."""

import base64
import json
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from controller.spec.fields import (
    CPU_SET,
    HTTP_PATH,
    MEDIA_TYPE,
    SECRET_NAME,
    VOLUME_VERSION,
    AbsolutePath,
    Duration,
    Environment,
    Model,
    Name,
    PortNumber,
    Size,
    Text,
    at_least,
)

LATEST = "latest"
LONGEST_SAMPLE = 64 * 1024
# Names of `longshore.v1.WorkloadSpec.allow`; capabilities(7).
ALLOWANCES = (
    "writable-root", "root", "new-privileges", "seccomp-unconfined", "host-network", "host-pid", "host-ipc",
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_IPC_LOCK", "CAP_KILL",
    "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
    "CAP_SYS_CHROOT", "CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
)  # fmt: skip


def _base64(value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except ValueError as error:
        raise ValueError("expected base64, such as the output of `base64 -w0 FILE`") from error
    return value


def _known_allowance(value: str) -> str:
    if value not in ALLOWANCES:
        raise ValueError(f"expected one of {', '.join(ALLOWANCES)}")
    return value


Allowance = Annotated[str, AfterValidator(_known_allowance), Field(json_schema_extra={"enum": list(ALLOWANCES)})]
# What a file holds at this place, whatever it is.
Json = Annotated[Any, Field(json_schema_extra={"type": "json"})]


class PortSpec(Model):
    name: Name = Field(description="The name by which checks and endpoints call it.", examples=["http"])
    container: PortNumber = Field(description="Where the service listens.", examples=[8080])
    host: PortNumber | Literal["auto"] | None = Field(
        default=None,
        description="Where the device publishes it; `auto` for a free one; `container`'s number where it is not given.",
        examples=["auto"],
    )


class NetworkSpec(Model):
    ports: list[PortSpec] = Field(default=[], max_length=64, description="Ports of the service.")


class HttpCheck(Model):
    port: Name = Field(description="Name of one of the ports.", examples=["http"])
    path: Annotated[str, Field(pattern=HTTP_PATH)] = Field(
        default="/", description="What is asked by GET; a status from 200 to 399 is a yes.", examples=["/healthz"]
    )


class TcpCheck(Model):
    port: Name = Field(description="Name of the port that has to accept a connection.", examples=["http"])


class CommandCheck(Model):
    command: list[Text] = Field(
        min_length=1, max_length=64, description="Run inside; 0 is a yes.", examples=[["test", "-e", "/tmp/ready"]]
    )


class InferenceCheck(Model):
    """A sample request to the served model, by POST, and what its answer has to hold."""

    port: Name = Field(description="Name of the port at which the model is served.", examples=["http"])
    path: Annotated[str, Field(pattern=HTTP_PATH)] = Field(
        description="What is asked.", examples=["/v2/models/digits/infer"]
    )
    request: Json | None = Field(
        default=None, description="The body, sent as JSON.", examples=[{"inputs": [{"name": "x", "data": [1, 2]}]}]
    )
    request_bytes: Annotated[str, AfterValidator(_base64)] | None = Field(
        default=None, description="The body in base64, in place of `request`: an image, for example."
    )
    content_type: Annotated[str, Field(pattern=MEDIA_TYPE)] = Field(
        default="application/json", description="Media type of the body.", examples=["image/png"]
    )
    expect: Json = Field(
        description="What the answer has to hold, as JSON: it may have more keys, lists have to be as long.",
        examples=[{"digit": 7}],
    )
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] = Field(
        default=0.0, description="By how much numbers may differ.", examples=[0.001]
    )
    latency: Annotated[Duration, at_least(timedelta(milliseconds=1))] | None = Field(
        default=None, description="How long the answer may take.", examples=["200ms"]
    )

    @model_validator(mode="after")
    def _one_request(self) -> "InferenceCheck":
        if (self.request is None) == (self.request_bytes is None):
            raise ValueError("expected exactly one of request, request_bytes")
        if len(self.body) > LONGEST_SAMPLE or len(json.dumps(self.expect)) > LONGEST_SAMPLE:
            raise ValueError(f"a sample and what is expected of it may have {LONGEST_SAMPLE} bytes each")
        return self

    @property
    def body(self) -> bytes:
        """The request's body."""
        if self.request_bytes is not None:
            return base64.b64decode(self.request_bytes)
        return json.dumps(self.request).encode()


class CheckSpec(Model):
    """Exactly one of `http`, `tcp`, `command` and `inference`."""

    http: HttpCheck | None = Field(default=None, description="Ask by HTTP.")
    tcp: TcpCheck | None = Field(default=None, description="Connect by TCP.")
    command: CommandCheck | None = Field(default=None, description="Run a command.")
    inference: InferenceCheck | None = Field(default=None, description="Ask the model for an answer that is known.")
    period: Annotated[Duration, at_least(timedelta(seconds=0.1))] = Field(
        default=timedelta(seconds=10), description="Time between two checks of an instance that is ready."
    )
    timeout: Annotated[Duration, at_least(timedelta(seconds=0.1))] = Field(
        default=timedelta(seconds=2), description="How long one check may take."
    )
    deadline: Annotated[Duration, at_least(timedelta(seconds=1))] = Field(
        default=timedelta(seconds=120), description="An instance that has not answered for so long has failed."
    )
    failure_threshold: int = Field(
        default=3, ge=1, le=1000, strict=True, description="So many failed checks in a row make it not ready."
    )

    @model_validator(mode="after")
    def _one_probe(self) -> "CheckSpec":
        if sum(probe is not None for probe in (self.http, self.tcp, self.command, self.inference)) != 1:
            raise ValueError("expected exactly one of http, tcp, command, inference")
        return self


class ChecksSpec(Model):
    readiness: CheckSpec | None = Field(
        default=None, description="How to ask whether it can serve; a TCP connection to the first port by default."
    )
    liveness: CheckSpec | None = Field(
        default=None,
        description="An instance that was ready and fails this check several times in a row is stopped, and started "
        "again after a while. Without it only its end is taken for a failure.",
    )


class ResourcesSpec(Model):
    """Limits on each device."""

    cpu: Annotated[float, Field(gt=0, le=4096, allow_inf_nan=False, strict=True)] | None = Field(
        default=None, description="Cores.", examples=[0.5]
    )
    memory: Annotated[Size, Field(ge=4 * 2**20)] | None = Field(
        default=None, description="Memory.", examples=["512MiB"]
    )
    pids: Annotated[int, Field(ge=1, le=4_194_304, strict=True)] | None = Field(
        default=None, description="Processes and threads.", examples=[256]
    )
    shared_memory: Annotated[Size, Field(ge=2**20)] | None = Field(
        default=None, description="Size of /dev/shm.", examples=["256MiB"]
    )
    cpu_set: Annotated[str, Field(pattern=CPU_SET)] | None = Field(
        default=None, description="The cores that may be used.", examples=["0-1"]
    )


class VolumeSpec(Model):
    """A folder that the device keeps for this deployment until it is deleted; or a version of a project volume."""

    name: Name = Field(description="Unique in the deployment.", examples=["data"])
    dst: AbsolutePath = Field(description="Path inside.", examples=["/data"])
    read_only: bool = Field(default=False, description="Whether writing is refused; of a project volume it always is.")
    project_volume: Name | None = Field(
        default=None,
        description="The project volume whose files lie there, pushed by `longshore volume push`; without it the "
        "folder is empty at first, and the deployment's own.",
        examples=["digits-model"],
    )
    version: Annotated[str, Field(pattern=VOLUME_VERSION)] = Field(
        default=LATEST,
        description="Of the project volume: a digest, or the one that is the latest when the deployment is applied.",
        examples=["latest"],
    )

    @model_validator(mode="after")
    def _of_project(self) -> "VolumeSpec":
        if self.project_volume is None and self.version != LATEST:
            raise ValueError("a version is of a project volume; name it as project_volume")
        if self.project_volume is not None and "read_only" in self.model_fields_set and not self.read_only:
            raise ValueError("a project volume is always read-only; remove read_only")
        return self


class MountSpec(Model):
    """A file or folder of the device, seen inside."""

    src: AbsolutePath = Field(description="Path on the device.", examples=["/srv/data"])
    dst: AbsolutePath = Field(description="Path inside.", examples=["/data"])
    read_only: bool = Field(default=True, description="Whether writing is refused.")


def _file_path(value: str) -> str:
    if value.endswith("/"):
        raise ValueError("expected the path of a file, such as /run/secrets/token")
    return value


class SecretSpec(Model):
    """A file that only the instance can read. Its value comes with the request, and is in no file of the user's."""

    name: Annotated[str, Field(pattern=SECRET_NAME)] = Field(
        description="Unique in the deployment; the request gives its value by this name.", examples=["token"]
    )
    dst: Annotated[AbsolutePath, AfterValidator(_file_path)] | None = Field(
        default=None,
        description="Path of the file inside; `/run/secrets/NAME` where it is not given.",
        examples=["/run/secrets/token"],
    )

    @property
    def place(self) -> str:
        """Where the file is."""
        return self.dst or f"/run/secrets/{self.name}"


class DeploySpec(Model):
    """How the artifact runs."""

    entrypoint: list[Text] = Field(
        default=[],
        max_length=1024,
        description="Command and arguments; no shell is involved. The runtime's or the base image's by default.",
        examples=[["python", "server.py"]],
    )
    pre_exec: list[Annotated[list[Text], Field(min_length=1, max_length=1024)]] = Field(
        default=[],
        max_length=64,
        description="Commands that run to their end, one after the other, before the entrypoint of each start.",
        examples=[[["python", "warm_up.py"]]],
    )
    environment: Environment = Field(
        default={}, description="Variables at run time; they win over those of `build`.", examples=[{"THREADS": "2"}]
    )
    network: NetworkSpec = Field(default=NetworkSpec(), description="How it is reached.")
    checks: ChecksSpec = Field(default=ChecksSpec(), description="How it is asked for its health.")
    resources: ResourcesSpec = Field(default=ResourcesSpec(), description="Limits on each device.")
    mounts: list[MountSpec] = Field(
        default=[], max_length=64, description="Files and folders of the device, seen inside."
    )
    volumes: list[VolumeSpec] = Field(
        default=[],
        max_length=64,
        description="Folders that the device keeps for this deployment, over restarts and updates, and project "
        "volumes.",
    )
    secrets: list[SecretSpec] = Field(
        default=[],
        max_length=16,
        description="Files that only the running service can read, in memory on the device; their values come with the "
        "request. Steps of the build do not see them: those have `build.secrets`.",
    )
    allow: list[Allowance] = Field(
        default=[],
        max_length=64,
        description="What is loosened of the safe defaults, by name.",
        examples=["writable-root"],
    )
    update: Literal["auto", "start-first", "stop-first"] = Field(
        default="auto",
        description="Whether a new revision is started before the old one stops: `auto` does so where neither a port "
        "nor something that both write to stands in the way.",
    )
    restart: Literal["always", "on-failure", "never"] = Field(
        default="always", description="What follows when it has ended."
    )
    stop_grace: Duration = Field(default=timedelta(seconds=10), description="Time from TERM to KILL.")
