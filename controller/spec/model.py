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


def _relative_path(value: str) -> str:
    parts = value.split("/")
    if value.startswith("/") or ".." in parts or "" in parts[:-1] or any(ord(c) < 32 or c == "\\" for c in value):
        raise ValueError("expected a path below the folder of the deployment.yml, such as model/digits.onnx")
    return "/".join(part for part in parts if part not in ("", ".")) or "."


def _absolute_path(value: str) -> str:
    if not value.startswith("/") or ".." in value.split("/") or any(ord(c) < 32 for c in value):
        raise ValueError("expected an absolute path without '..', such as /app")
    return value


def _printable(value: str) -> str:
    if any(ord(c) < 32 and c != "\t" for c in value) or "\x7f" in value:
        raise ValueError("control characters and line breaks are not allowed")
    return value


def _scalar_text(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


Name = Annotated[str, Field(pattern=NAME)]
Text = Annotated[str, BeforeValidator(_scalar_text), Field(max_length=4096), AfterValidator(_printable)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Size = Annotated[int, BeforeValidator(_size)]
RelativePath = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_relative_path)]
AbsolutePath = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_absolute_path)]
PortNumber = Annotated[int, Field(ge=1, le=65535, strict=True)]
Environment = dict[Annotated[str, Field(pattern=ENV_NAME)], Text]
Labels = dict[Annotated[str, Field(pattern=LABEL)], Annotated[Text, Field(max_length=63)]]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CondaPackages(Model):
    """An environment of its own in /opt/conda, made by micromamba."""

    channels: list[Annotated[str, Field(pattern=CONDA_CHANNEL)]] = Field(
        default=["conda-forge"], min_length=1, max_length=16
    )
    packages: list[Annotated[str, Field(pattern=CONDA_PACKAGE)]] = Field(min_length=1, max_length=10_000)


class Packages(Model):
    """What is installed into the image, besides what the base has. Of apt, dnf and apk the one that the base has."""

    apt: list[Annotated[str, Field(pattern=APT_PACKAGE)]] = Field(default=[], max_length=10_000)
    dnf: list[Annotated[str, Field(pattern=DNF_PACKAGE)]] = Field(default=[], max_length=10_000)
    apk: list[Annotated[str, Field(pattern=APK_PACKAGE)]] = Field(default=[], max_length=10_000)
    pypi: list[Annotated[str, Field(pattern=PYPI_REQUIREMENT)]] = Field(default=[], max_length=10_000)
    # Asked besides the default index.
    pypi_indexes: list[Annotated[str, Field(pattern=INDEX_URL)]] = Field(default=[], max_length=16)
    conda: CondaPackages | None = None


class RuntimeSpec(Model):
    """What executes the model: a kind from `templates/runtimes/`."""

    kind: Name
    # The model file (a runtime that serves models) or the program (the others), relative to the deployment.yml; it is
    # one of the files without being named there.
    path: RelativePath | None = None


class MinimumSpec(Model):
    """What a device has to have. A smaller one gets no workload; kept as labels of the image too."""

    cpu: Annotated[float, Field(gt=0, le=4096, allow_inf_nan=False, strict=True)] | None = None
    memory: Annotated[Size, Field(ge=1)] | None = None
    # CDI kind to count: {nvidia.com/gpu: 1}
    accelerators: dict[Annotated[str, Field(pattern=CDI_KIND)], Annotated[int, Field(ge=1, le=64, strict=True)]] = {}


class BuildSpec(Model):
    """How the artifact is made."""

    base: Annotated[str, Field(pattern=IMAGE)] | None = None
    # One of the base distributions that each target profile offers, such as debian-bookworm; not together with `base`.
    distribution: Name | None = None
    runtime: RuntimeSpec | None = None
    packages: Packages = Packages()
    # Files and folders, relative to the deployment.yml, copied to `workdir` under the same relative paths.
    files: list[RelativePath] = Field(default=[], max_length=10_000)
    workdir: AbsolutePath = "/app"
    # Shell commands, run as root in `workdir` after packages and files are there; each is a step of its own.
    steps: list[Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_printable)]] = Field(
        default=[], max_length=100
    )
    # Names of secrets whose values come with the request; steps read them at /run/secrets/NAME, no layer holds them.
    secrets: list[Annotated[str, Field(pattern=SECRET_NAME)]] = Field(default=[], max_length=32)
    environment: Environment = {}
    labels: dict[Annotated[str, Field(pattern=LABEL_KEY)], Text] = {}
    volumes: list[AbsolutePath] = Field(default=[], max_length=64)
    # Run as root, with sudo installed; otherwise as user 1000, and without sudo.
    allow_root: bool = Field(default=False, strict=True)
    minimum: MinimumSpec = MinimumSpec()
    # The last part of the artifact's name in the registry; the spec's name where it is not given.
    image: Name | None = None
    # Tags that name the result besides the build's id.
    tags: list[Annotated[str, Field(pattern=TAG)]] = Field(default=[], max_length=32)
    # Without it the result stays with the builder: a trial that no device can run.
    push: bool = Field(default=True, strict=True)
    # Of each target, from its first step on.
    timeout: Annotated[Duration, _at_least(timedelta(seconds=1))] = timedelta(hours=2)


class PortSpec(Model):
    name: Name
    container: PortNumber
    # The same number as `container` where it is not given; "auto" lets the device pick a free one.
    host: PortNumber | Literal["auto"] | None = None


class NetworkSpec(Model):
    ports: list[PortSpec] = Field(default=[], max_length=64)


class HttpCheck(Model):
    port: Name
    path: Annotated[str, Field(pattern=HTTP_PATH)] = "/"


class TcpCheck(Model):
    port: Name


class CommandCheck(Model):
    command: list[Text] = Field(min_length=1, max_length=64)


class CheckSpec(Model):
    """Exactly one of `http`, `tcp` and `command`."""

    http: HttpCheck | None = None
    tcp: TcpCheck | None = None
    command: CommandCheck | None = None
    period: Annotated[Duration, _at_least(timedelta(seconds=0.1))] = timedelta(seconds=10)
    timeout: Annotated[Duration, _at_least(timedelta(seconds=0.1))] = timedelta(seconds=2)
    deadline: Annotated[Duration, _at_least(timedelta(seconds=1))] = timedelta(seconds=120)
    failure_threshold: int = Field(default=3, ge=1, le=1000, strict=True)

    @model_validator(mode="after")
    def _one_probe(self) -> "CheckSpec":
        if sum(probe is not None for probe in (self.http, self.tcp, self.command)) != 1:
            raise ValueError("expected exactly one of http, tcp, command")
        return self


class ChecksSpec(Model):
    # Where it is not given: a TCP connection to the first port.
    readiness: CheckSpec | None = None


class ResourcesSpec(Model):
    """Limits on each device."""

    cpu: Annotated[float, Field(gt=0, le=4096, allow_inf_nan=False, strict=True)] | None = None
    memory: Annotated[Size, Field(ge=4 * 2**20)] | None = None
    pids: Annotated[int, Field(ge=1, le=4_194_304, strict=True)] | None = None


class MountSpec(Model):
    """A file or folder of the device, seen inside."""

    src: AbsolutePath
    dst: AbsolutePath
    read_only: bool = True


class DeploySpec(Model):
    """How the artifact runs."""

    entrypoint: list[Text] = Field(default=[], max_length=1024)
    # Commands that run to their end, one after the other, before the entrypoint of each start.
    pre_exec: list[Annotated[list[Text], Field(min_length=1, max_length=1024)]] = Field(default=[], max_length=64)
    environment: Environment = {}
    network: NetworkSpec = NetworkSpec()
    checks: ChecksSpec = ChecksSpec()
    resources: ResourcesSpec = ResourcesSpec()
    mounts: list[MountSpec] = Field(default=[], max_length=64)
    restart: Literal["always", "on-failure", "never"] = "always"
    stop_grace: Duration = timedelta(seconds=10)


class TargetSpec(Model):
    """Devices of one profile that carry all of these labels; without labels every device of the profile.

    A plain platform stands for its profile in PLATFORM_PROFILES.
    """

    profile: Name
    artifact: Literal["image", "bundle"] = "image"
    labels: Labels = {}

    @model_validator(mode="before")
    @classmethod
    def _platform(cls, value: object) -> object:
        if not isinstance(value, dict) or "platform" not in value:
            return value
        if "profile" in value:
            raise ValueError("expected either profile or platform, not both")
        rest = {key: part for key, part in value.items() if key != "platform"}
        platform = value["platform"]
        if not isinstance(platform, str) or platform not in PLATFORM_PROFILES:
            raise ValueError(f"expected one of the platforms {', '.join(PLATFORM_PROFILES)}")
        return {**rest, "profile": PLATFORM_PROFILES[platform]}

    @property
    def key(self) -> str:
        """The name of the build target that makes the artifact: `x86-cpu`, `x86-cpu.bundle`."""
        return target_key(self.profile, self.artifact)


def target_key(profile: str, artifact: str) -> str:
    """Names one target of a build: the profile, and ".bundle" behind it for a bundle."""
    return profile if artifact == "image" else f"{profile}.{artifact}"


class Spec(Model):
    """A whole `deployment.yml`."""

    version: Annotated[Literal[1], BeforeValidator(_not_boolean)]
    name: Name
    build: BuildSpec = BuildSpec()
    deploy: DeploySpec = DeploySpec()
    targets: list[TargetSpec] = Field(min_length=1, max_length=64)
