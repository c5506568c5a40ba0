"""The part `deploy` of a `deployment.yml`: how the artifact runs on a device."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from controller.spec.fields import (
    HTTP_PATH,
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


class CheckSpec(Model):
    """Exactly one of `http`, `tcp` and `command`."""

    http: HttpCheck | None = Field(default=None, description="Ask by HTTP.")
    tcp: TcpCheck | None = Field(default=None, description="Connect by TCP.")
    command: CommandCheck | None = Field(default=None, description="Run a command.")
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
        if sum(probe is not None for probe in (self.http, self.tcp, self.command)) != 1:
            raise ValueError("expected exactly one of http, tcp, command")
        return self


class ChecksSpec(Model):
    readiness: CheckSpec | None = Field(
        default=None, description="How to ask whether it can serve; a TCP connection to the first port by default."
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


class MountSpec(Model):
    """A file or folder of the device, seen inside."""

    src: AbsolutePath = Field(description="Path on the device.", examples=["/srv/data"])
    dst: AbsolutePath = Field(description="Path inside.", examples=["/data"])
    read_only: bool = Field(default=True, description="Whether writing is refused.")


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
    restart: Literal["always", "on-failure", "never"] = Field(
        default="always", description="What follows when it has ended."
    )
    stop_grace: Duration = Field(default=timedelta(seconds=10), description="Time from TERM to KILL.")
