"""Runtimes: what executes a model. One YAML file each in `templates/runtimes/`, a folder of its files beside it."""

import functools
import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from controller.spec.definitions import InvalidDefinition, read_definitions
from controller.spec.deploy_model import CheckSpec, PortSpec
from controller.spec.fields import CDI_KIND, ENV_NAME, NAME, Environment, Text
from controller.spec.model import BuildSpec, MinimumSpec, Packages

# In words of an entrypoint: the spec's runtime.path, its name, and the container's port of that name.
PLACEHOLDER = re.compile(r"\{(path|name|port\.([a-z0-9-]+))\}")
# What carries the number of cores where no runtime says it: OpenMP, OpenBLAS, MKL, and scripts.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
_FILE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
_extra_folder: Path | None = None


def _known_placeholders(word: str) -> str:
    if "{" in PLACEHOLDER.sub("", word):
        raise ValueError("expected no placeholders but {path}, {name} and {port.NAME}")
    return word


Word = Annotated[Text, AfterValidator(_known_placeholders)]


class RuntimeKind(BaseModel):
    """One kind of runtime, and what a spec that names it gets where it says nothing else itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=NAME)]
    description: Annotated[str, Field(min_length=1)]
    # What a user should know before relying on it.
    notes: str = ""
    # It serves a model file by itself: `runtime.path` is a model, and has to be given.
    serves_models: bool = False
    # Endings of which `runtime.path` has one; empty for any.
    suffixes: tuple[Annotated[str, Field(pattern=r"^\.[a-z0-9]{1,16}$")], ...] = ()
    packages: Packages = Packages()
    # CDI kind to the packages that take the place of `packages` on a profile with such an accelerator.
    accelerated: dict[Annotated[str, Field(pattern=CDI_KIND)], Packages] = {}
    # Names of files in the folder NAME beside the runtime's YAML; in the image they lie in /opt/longshore/runtime/.
    files: tuple[Annotated[str, Field(pattern=_FILE_NAME)], ...] = ()
    entrypoint: tuple[Word, ...] = ()
    ports: tuple[PortSpec, ...] = ()
    readiness: CheckSpec | None = None
    environment: Environment = {}
    minimum: MinimumSpec = MinimumSpec()
    # Environment variables that carry the number of cores a workload may use.
    thread_variables: tuple[Annotated[str, Field(pattern=ENV_NAME)], ...] = ()

    @model_validator(mode="after")
    def _ports_are_there(self) -> "RuntimeKind":
        asked = {match[2] for word in self.entrypoint for match in PLACEHOLDER.finditer(word) if match[2]}
        if self.readiness and (probe := self.readiness.http or self.readiness.tcp):
            asked.add(probe.port)
        if missing := asked - {port.name for port in self.ports}:
            raise ValueError(f"ports has none named {', '.join(sorted(missing))}")
        return self


def use_folder(folder: Path | None) -> None:
    """From now on load_runtimes() has the runtimes in `folder` too, in this whole process: every part of it has to
    read a spec alike. Raises InvalidDefinition, and then changes nothing."""
    global _extra_folder
    _load(folder)
    _extra_folder = folder


def load_runtimes() -> Mapping[str, RuntimeKind]:
    """All runtimes by name: the shipped ones, and those of `use_folder`, which add to them or override them."""
    return _load(_extra_folder)


def thread_variables(build: BuildSpec) -> tuple[str, ...]:
    """Environment variables that carry the number of cores a workload of this build may use."""
    runtime = load_runtimes().get(build.runtime.kind) if build.runtime else None
    return runtime.thread_variables if runtime else THREAD_VARIABLES


def runtime_file(kind: str, name: str) -> bytes:
    """Content of one of the runtime's files."""
    return _file(_extra_folder, kind, name).read_bytes()


@functools.cache
def _load(folder: Path | None) -> Mapping[str, RuntimeKind]:
    runtimes = read_definitions(RuntimeKind, "runtimes", folder)
    missing = [
        f"{kind}.yaml: files: there is no file {name} in the folder {kind} beside it"
        for kind, runtime in runtimes.items()
        for name in runtime.files
        if not _file(folder, kind, name).is_file()
    ]
    if missing:
        raise InvalidDefinition("\n".join(missing))
    return runtimes


def _file(folder: Path | None, kind: str, name: str) -> Traversable:
    if folder is not None and (folder / f"{kind}.yaml").exists():
        return folder / kind / name
    return files("templates") / "runtimes" / kind / name
