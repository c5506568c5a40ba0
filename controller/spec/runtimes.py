"""Runtimes: what executes a model. One YAML file each in `templates/runtimes/`, a folder of its files beside it."""

import functools
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field

from controller.spec.model import CDI_KIND, NAME, CheckSpec, Environment, Packages, PortSpec, Text


class RuntimeKind(BaseModel):
    """One kind of runtime, and what a spec that names it gets where it says nothing else itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=NAME)]
    description: str
    # What a user should know before relying on it.
    notes: str = ""
    # It serves a model file by itself: `runtime.path` is a model, with one of these endings.
    serves_models: bool = False
    suffixes: tuple[str, ...] = ()
    packages: Packages = Packages()
    # CDI kind to the packages that take the place of `packages` on a profile with such an accelerator.
    accelerated: dict[Annotated[str, Field(pattern=CDI_KIND)], Packages] = {}
    # Names of files in `templates/runtimes/NAME/`; in the image they lie in /opt/longshore/runtime/.
    files: tuple[str, ...] = ()
    # "{path}" stands for `runtime.path` of the spec.
    entrypoint: tuple[Text, ...] = ()
    ports: tuple[PortSpec, ...] = ()
    readiness: CheckSpec | None = None
    environment: Environment = {}
    # Environment variables that carry the number of cores a workload may use.
    thread_variables: tuple[str, ...] = ()


@functools.cache
def load_runtimes() -> Mapping[str, RuntimeKind]:
    """All runtimes by name. Raises ValueError where a file is wrong or misnamed."""
    runtimes: dict[str, RuntimeKind] = {}
    folder = files("templates") / "runtimes"
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not entry.name.endswith(".yaml"):
            continue
        runtime = RuntimeKind.model_validate(yaml.safe_load(entry.read_text(encoding="utf-8")))
        if entry.name != f"{runtime.name}.yaml":
            raise ValueError(f"templates/runtimes/{entry.name}: name is {runtime.name}, expected the file's name")
        runtimes[runtime.name] = runtime
    return MappingProxyType(runtimes)


def runtime_file(kind: str, name: str) -> bytes:
    """Content of one of the runtime's files."""
    return (files("templates") / "runtimes" / kind / name).read_bytes()
