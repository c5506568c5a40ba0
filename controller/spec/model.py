"""Version 1 of `deployment.yml` as pydantic models: what a person may write, with defaults and limits.

`controller.spec.loader` reads a file into these and reports every problem with its line and column.
"""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from controller.spec.deploy_model import DeploySpec
from controller.spec.fields import (
    APK_PACKAGE,
    APT_PACKAGE,
    CDI_KIND,
    CONDA_CHANNEL,
    CONDA_PACKAGE,
    DNF_PACKAGE,
    INDEX_URL,
    LABEL_KEY,
    PLATFORM_PROFILES,
    PYPI_REQUIREMENT,
    SECRET_NAME,
    TAG,
    AbsolutePath,
    Duration,
    Environment,
    Labels,
    Model,
    ModelPath,
    Name,
    RelativePath,
    Size,
    Text,
    at_least,
    no_blank_end,
    no_removal,
    not_boolean,
    printable,
)
from controller.spec.image_names import ImageName


class CondaPackages(Model):
    """An environment of its own in /opt/conda."""

    channels: list[Annotated[str, Field(pattern=CONDA_CHANNEL)]] = Field(
        default=["conda-forge"],
        min_length=1,
        max_length=16,
        description="Channels that are asked, the first one first: names, or https URLs.",
        examples=["conda-forge"],
    )
    packages: list[Annotated[str, Field(pattern=CONDA_PACKAGE), AfterValidator(no_removal)]] = Field(
        min_length=1, max_length=10_000, description="Conda packages.", examples=["numpy=1.26"]
    )


class Packages(Model):
    """What is installed into the image, besides what the base has. Of apt, dnf and apk the one that the base has."""

    apt: list[Annotated[str, Field(pattern=APT_PACKAGE), AfterValidator(no_removal)]] = Field(
        default=[], max_length=10_000, description="Packages of Debian and Ubuntu bases.", examples=["libgomp1"]
    )
    dnf: list[Annotated[str, Field(pattern=DNF_PACKAGE), AfterValidator(no_removal)]] = Field(
        default=[], max_length=10_000, description="Packages of Fedora and Red Hat bases.", examples=["libgomp"]
    )
    apk: list[Annotated[str, Field(pattern=APK_PACKAGE), AfterValidator(no_removal)]] = Field(
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
    path: ModelPath | None = Field(
        default=None,
        description="The model file of a runtime that serves models, or the program of the others; relative to the "
        "deployment.yml, and one of the files without being named there; or absolute, in a project volume.",
        examples=["model/digits.onnx"],
    )

    @property
    def file(self) -> str | None:
        """The path, where it is one of the files."""
        return None if self.path is None or self.path.startswith("/") else self.path


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
    base: ImageName | None = Field(
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
    steps: list[Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(printable)]] = Field(
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
        default={},
        description="Labels of the image; those of org.opencontainers.image. are annotations of the artifacts too.",
        examples=[{"com.example.team": "vision"}],
    )
    volumes: list[Annotated[AbsolutePath, AfterValidator(no_blank_end)]] = Field(
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
    timeout: Annotated[Duration, at_least(timedelta(seconds=1))] = Field(
        default=timedelta(hours=2), description="How long each target may take, from its first step on."
    )

    @property
    def all_files(self) -> list[str]:
        """All that it asks for, also the one of a runtime that is not known here; relative to the deployment.yml."""
        return [*self.files, *([self.runtime.file] if self.runtime and self.runtime.file else [])]


class OptionalSpec(Model):
    """Files of a network, by their role. Each is one of the files without being named there."""

    nn_file: RelativePath | None = Field(default=None, description="Program of the network.", examples=["output.py"])
    weight_file: list[RelativePath] = Field(
        default=[], max_length=64, description="Weights of the network.", examples=["model.pt"]
    )
    model_file: RelativePath | None = Field(
        default=None, description="Description of the model, such as its labels.", examples=["labelmap.yaml"]
    )
    annotation_file: RelativePath | None = Field(
        default=None, description="Annotations of the data.", examples=["coco.dat"]
    )

    @property
    def files(self) -> list[str]:
        """All that are named, each once."""
        single = [name for name in (self.nn_file, self.model_file, self.annotation_file) if name is not None]
        return list(dict.fromkeys([*single, *self.weight_file]))


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

    replicas: Annotated[int, Field(ge=1, le=100_000, strict=True)] | Literal["all"] = Field(
        default="all",
        description="On how many of these devices it runs; a device that has it keeps it. On all of them by default.",
        examples=[2],
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

    version: Annotated[Literal[1], BeforeValidator(not_boolean)] = Field(description="Of the file's format.")
    name: Name = Field(description="Name of the deployment, unique in its project.", examples=["digits"])
    build: BuildSpec = Field(default=BuildSpec(), description="How the artifact is made.")
    deploy: DeploySpec = Field(default=DeploySpec(), description="How it runs.")
    targets: list[TargetSpec] = Field(min_length=1, max_length=64, description="On which devices.")
    optional: OptionalSpec = Field(
        default=OptionalSpec(), description="Files of the network by their role; they are built in as files are."
    )
