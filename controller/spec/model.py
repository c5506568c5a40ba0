"""Version 1 of `deployment.yml` as pydantic models: what a person may write, with defaults and limits.

`controller.spec.loader` reads a file into these and reports every problem with its line and column.
"""

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
# A trailing "-" would make apt-get remove the package.
APT_PACKAGE = r"^[a-z0-9][a-z0-9+.-]{0,98}[a-z0-9+.](:[a-z0-9]+)?(=[A-Za-z0-9.+:~-]{1,99})?$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,254}$"
IMAGE = r"^[a-z0-9][a-z0-9._:/@-]{0,254}$"
LABEL = r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$"
# PEP 508 without direct references and markers: name, extras, versions.
_VERSION = "[ ]*(===|==|~=|!=|<=|>=|<|>)[ ]*[A-Za-z0-9.*+!_-]{1,64}"
PYPI_REQUIREMENT = (
    r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,99}[A-Za-z0-9])?(\[[A-Za-z0-9._, -]{1,99}\])?"
    f"({_VERSION}([ ]*,{_VERSION}){{0,9}})?$"
)
# dnf and apk: name, and what each of them writes behind it for a version.
DNF_PACKAGE = r"^[A-Za-z0-9][A-Za-z0-9+._-]{0,120}(:[0-9]+)?(-[A-Za-z0-9+._~^-]{1,99})?$"
APK_PACKAGE = r"^[a-z0-9][a-z0-9+._-]{0,98}((=|~|~=|<|>|<=|>=)[A-Za-z0-9._-]{1,64})?$"
CONDA_PACKAGE = r"^[a-z0-9_][a-z0-9_.-]{0,98}([ ]?(=|==|>=|<=|>|<|!=|~=)[ ]?[A-Za-z0-9.*+!_|,<>=-]{1,99})?$"
CONDA_CHANNEL = r"^(https://[A-Za-z0-9][A-Za-z0-9.-]{0,99}(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]{0,199})?|[A-Za-z0-9][A-Za-z0-9_.-]{0,63})$"
# A package index. Credentials come as build-time secrets or from the host's settings, never in a spec.
INDEX_URL = r"^https?://[A-Za-z0-9][A-Za-z0-9.-]{0,253}(:[0-9]{1,5})?(/[A-Za-z0-9._~%/+-]{0,499})?$"
# Keys of labels in an image: reverse DNS by custom, as OCI annotations are.
LABEL_KEY = r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,253}[A-Za-z0-9])?$"
# OCI distribution specification, "Pulling manifests".
TAG = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
LONGEST_TAG = 128
SECRET_NAME = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
# A CDI kind: vendor/class. https://github.com/cncf-tags/container-device-interface
CDI_KIND = r"^[A-Za-z][A-Za-z0-9_.-]{0,62}[A-Za-z0-9]/[A-Za-z]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?$"
# What a plain platform stands for: the profile that assumes nothing else of the machine.
PLATFORM_PROFILES = {"linux/amd64": "x86-cpu", "linux/arm64": "arm64-cpu", "linux/arm/v7": "armv7-cpu"}
HTTP_PATH = r"^/[!-~]{0,1023}$"
DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h)$")
SIZE = re.compile(r"^(\d+(?:\.\d+)?)(B|KiB|MiB|GiB|KB|MB|GB)?$")
SIZE_UNITS = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_SECONDS = 7 * 24 * 3600.0


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    seconds = -1.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and len(value) < 20 and (match := DURATION.fullmatch(value)):
        seconds = float(match[1]) * SECONDS[match[2]]
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError("expected a duration such as 500ms, 10s or 2m, at most 168h")
    return timedelta(seconds=seconds)


def _at_least(shortest: timedelta) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if value < shortest:
            raise ValueError(f"expected at least {shortest / timedelta(seconds=1):g}s")
        return value

    return AfterValidator(check)


def _not_boolean(value: object) -> object:
    """Python takes True for 1."""
    if isinstance(value, bool):
        raise ValueError("expected 1")
    return value


def _size(value: object) -> int:
    size = -1
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and len(value) < 20 and (match := SIZE.fullmatch(value)):
        size = int(float(match[1]) * SIZE_UNITS[match[2]])
    if not 0 <= size < 2**60:
        raise ValueError("expected a size such as 512MiB or 1.5GiB")
    return size


def has_controls(text: str) -> bool:
    """Whether there are control characters or line breaks in it, those of Unicode too: parsers differ in what they take
    for a line's end."""
    return any(ord(c) < 32 or c in "\x7f\x85\u2028\u2029" for c in text)


def _no_removal(value: str) -> str:
    if value.endswith("-"):
        raise ValueError("a name that ends in '-' would remove the package")
    return value


def _relative_path(value: str) -> str:
    parts = value.split("/")
    if value.startswith("/") or ".." in parts or "" in parts[:-1] or "\\" in value or has_controls(value):
        raise ValueError("expected a path below the folder of the deployment.yml, such as model/digits.onnx")
    return "/".join(part for part in parts if part not in ("", ".")) or "."


def _absolute_path(value: str) -> str:
    if not value.startswith("/") or ".." in value.split("/") or has_controls(value):
        raise ValueError("expected an absolute path without '..', such as /app")
    return value


def _printable(value: str) -> str:
    if has_controls(value.replace("\t", "")):
        raise ValueError("control characters and line breaks are not allowed")
    return value


def _scalar_text(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


Name = Annotated[str, Field(pattern=NAME)]
Text = Annotated[str, BeforeValidator(_scalar_text), Field(max_length=4096), AfterValidator(_printable)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
# Formats are what controller.spec.form tells beside a type.
Size = Annotated[int, BeforeValidator(_size), Field(json_schema_extra={"format": "size"})]
_PATH = Field(json_schema_extra={"format": "path"})
RelativePath = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_relative_path), _PATH]
AbsolutePath = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_absolute_path), _PATH]
PortNumber = Annotated[int, Field(ge=1, le=65535, strict=True)]
Environment = dict[Annotated[str, Field(pattern=ENV_NAME)], Text]
Labels = dict[Annotated[str, Field(pattern=LABEL)], Annotated[Text, Field(max_length=63)]]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CondaPackages(Model):
    """An environment of its own in /opt/conda, made by micromamba."""

    channels: list[Annotated[str, Field(pattern=CONDA_CHANNEL)]] = Field(
        default=["conda-forge"],
        min_length=1,
        max_length=16,
        description="Channels that are asked, the first one first: names, or https URLs.",
        examples=["conda-forge"],
    )
    packages: list[Annotated[str, Field(pattern=CONDA_PACKAGE), AfterValidator(_no_removal)]] = Field(
        min_length=1, max_length=10_000, description="Conda packages.", examples=["numpy=1.26"]
    )


class Packages(Model):
    """What is installed into the image, besides what the base has. Of apt, dnf and apk the one that the base has."""

    apt: list[Annotated[str, Field(pattern=APT_PACKAGE), AfterValidator(_no_removal)]] = Field(
        default=[], max_length=10_000, description="Packages of Debian and Ubuntu bases.", examples=["libgomp1"]
    )
    dnf: list[Annotated[str, Field(pattern=DNF_PACKAGE), AfterValidator(_no_removal)]] = Field(
        default=[], max_length=10_000, description="Packages of Fedora and Red Hat bases.", examples=["libgomp"]
    )
    apk: list[Annotated[str, Field(pattern=APK_PACKAGE), AfterValidator(_no_removal)]] = Field(
        default=[], max_length=10_000, description="Packages of Alpine bases.", examples=["libgomp"]
    )
    pypi: list[Annotated[str, Field(pattern=PYPI_REQUIREMENT)]] = Field(
        default=[],
        max_length=10_000,
        description="Python packages, installed by uv into an environment of their own.",
        examples=["onnxruntime>=1.17,<2"],
    )
    pypi_indexes: list[Annotated[str, Field(pattern=INDEX_URL)]] = Field(
        default=[],
        max_length=16,
        description="Package indexes that are asked besides the default one. Credentials are never part of a URL.",
        examples=["https://download.pytorch.org/whl/cpu"],
    )
    conda: CondaPackages | None = Field(default=None, description="Conda packages, in an environment of their own.")


class RuntimeSpec(Model):
    """What executes the model: a kind from `templates/runtimes/`."""

    kind: Name = Field(
        description="The engine. Some serve a model file without any code; the others install what a program needs.",
        examples=["onnx"],
    )
    # It is one of the files without being named there.
    path: RelativePath | None = Field(
        default=None,
        description="The model file of a runtime that serves models, or the program of the others; relative to the "
        "deployment.yml, and one of the files without being named there.",
        examples=["model/digits.onnx"],
    )


class MinimumSpec(Model):
    """What a device has to have. A smaller one gets no workload; kept as labels of the image too."""

    cpu: Annotated[float, Field(gt=0, le=4096, allow_inf_nan=False, strict=True)] | None = Field(
        default=None, description="Processor cores.", examples=[2]
    )
    memory: Annotated[Size, Field(ge=1)] | None = Field(default=None, description="Main memory.", examples=["1GiB"])
    # CDI kind to count.
    accelerators: dict[Annotated[str, Field(pattern=CDI_KIND)], Annotated[int, Field(ge=1, le=64, strict=True)]] = (
        Field(default={}, description="Number of accelerators of each CDI kind.", examples=[{"nvidia.com/gpu": 1}])
    )


class BuildSpec(Model):
    """How the artifact is made."""

    runtime: RuntimeSpec | None = Field(default=None, description="What executes the model.")
    base: Annotated[str, Field(pattern=IMAGE)] | None = Field(
        default=None,
        description="The image to build on, with its registry. The target profile's where it is not given.",
        examples=["docker.io/library/python:3.11-slim-bookworm"],
    )
    distribution: Name | None = Field(
        default=None,
        description="One of the base distributions that every target profile of this file offers; not with `base`.",
        examples=["debian-bookworm"],
    )
    packages: Packages = Field(default=Packages(), description="What is installed besides what the base has.")
    files: list[RelativePath] = Field(
        default=[],
        max_length=10_000,
        description="Files and folders beside the deployment.yml, copied below `workdir` under the same relative "
        "paths; `.` means all.",
        examples=["server.py"],
    )
    workdir: AbsolutePath = Field(
        default="/app", description="The working directory, in which the files lie.", examples=["/app"]
    )
    steps: list[Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_printable)]] = Field(
        default=[],
        max_length=100,
        description="Shell commands, run as root in `workdir` after packages and files are there.",
        examples=["python -m compileall ."],
    )
    # Steps read them at /run/secrets/NAME, no layer holds them.
    secrets: list[Annotated[str, Field(pattern=SECRET_NAME)]] = Field(
        default=[],
        max_length=32,
        description="Names of secrets whose values come with the request; steps read them at /run/secrets/NAME.",
        examples=["token"],
    )
    environment: Environment = Field(
        default={}, description="Variables that are kept in the image.", examples=[{"PRECISION": "fp16"}]
    )
    labels: dict[Annotated[str, Field(pattern=LABEL_KEY)], Text] = Field(
        default={}, description="Labels of the image.", examples=[{"com.example.team": "vision"}]
    )
    volumes: list[AbsolutePath] = Field(
        default=[],
        max_length=64,
        description="Folders that the image declares as volumes: what is written there is no part of the container.",
        examples=["/data"],
    )
    allow_root: bool = Field(
        default=False,
        strict=True,
        description="Run as root, with sudo installed; otherwise as user 1000, and without sudo.",
    )
    minimum: MinimumSpec = Field(default=MinimumSpec(), description="What a device has to have.")
    image: Name | None = Field(
        default=None,
        description="The last part of the artifact's name in the registry; `name` where it is not given.",
        examples=["digits"],
    )
    tags: list[Annotated[str, Field(pattern=TAG)]] = Field(
        default=[],
        max_length=32,
        description="Tags that name the result besides the build's id; a bundle has them with its target's key behind.",
        examples=["v1"],
    )
    push: bool = Field(
        default=True,
        strict=True,
        description="Push the result. Without it the result stays with the builder: a trial that no device can run.",
    )
    timeout: Annotated[Duration, _at_least(timedelta(seconds=1))] = Field(
        default=timedelta(hours=2), description="How long each target may take, from its first step on."
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
    period: Annotated[Duration, _at_least(timedelta(seconds=0.1))] = Field(
        default=timedelta(seconds=10), description="Time between two checks of an instance that is ready."
    )
    timeout: Annotated[Duration, _at_least(timedelta(seconds=0.1))] = Field(
        default=timedelta(seconds=2), description="How long one check may take."
    )
    deadline: Annotated[Duration, _at_least(timedelta(seconds=1))] = Field(
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


class TargetSpec(Model):
    """Devices of one profile that carry all of these labels; without labels every device of the profile.

    A plain platform stands for its profile in PLATFORM_PROFILES; `platform` is None once it was read.
    """

    profile: Name = Field(description="The target profile of the devices, or a platform in its place.")
    platform: Literal["linux/amd64", "linux/arm64", "linux/arm/v7"] | None = Field(
        default=None, description="In place of a profile: devices of which nothing but this is assumed."
    )
    artifact: Literal["image", "bundle"] = Field(
        default="image", description="A container image, or a bundle for devices without containers."
    )
    labels: Labels = Field(
        default={},
        description="Labels that a device must carry, all of them; every device of the profile by default.",
        examples=[{"site": "hall-1"}],
    )

    @model_validator(mode="before")
    @classmethod
    def _platform(cls, value: object) -> object:
        if not isinstance(value, dict) or "profile" in value or value.get("platform") is None:
            return value
        profile = PLATFORM_PROFILES.get(value["platform"]) if isinstance(value["platform"], str) else None
        # An unknown platform is the one problem then, and not a missing profile too.
        kept = {key: part for key, part in value.items() if key != "platform" or profile is None}
        return {**kept, "profile": profile or "unknown"}

    @property
    def key(self) -> str:
        """The name of the build target that makes the artifact: `x86-cpu`, `x86-cpu.bundle`."""
        return target_key(self.profile, self.artifact)


def target_key(profile: str, artifact: str) -> str:
    """Names one target of a build: the profile, and ".bundle" behind it for a bundle."""
    return profile if artifact == "image" else f"{profile}.{artifact}"


def bundle_tag(tag: str, key: str) -> str:
    """The tag of the bundle of this target where images are tagged `tag`: one repository holds both, and a tag names
    one thing."""
    return f"{tag}.{key}"


class Spec(Model):
    """A whole `deployment.yml`."""

    version: Annotated[Literal[1], BeforeValidator(_not_boolean)] = Field(description="Of the file's format.")
    name: Name = Field(description="Name of the deployment, unique in its project.", examples=["digits"])
    build: BuildSpec = Field(default=BuildSpec(), description="How the artifact is made.")
    deploy: DeploySpec = Field(default=DeploySpec(), description="How it runs.")
    targets: list[TargetSpec] = Field(min_length=1, max_length=64, description="On which devices.")
