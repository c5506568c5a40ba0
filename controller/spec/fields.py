"""What single fields of a `deployment.yml` may hold: patterns, and types with their limits."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
# A trailing "-" would make apt-get remove the package.
APT_PACKAGE = r"^[a-z0-9][a-z0-9+.-]{0,98}[a-z0-9+.](:[a-z0-9]+)?(=[A-Za-z0-9.+:~-]{1,99})?$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,254}$"
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
# Of a project volume: a digest, or the one that was pushed last when the deployment is applied.
VOLUME_VERSION = r"^(latest|sha256:[0-9a-f]{64})$"
SECRET_NAME = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
# A CDI kind: vendor/class. https://github.com/cncf-tags/container-device-interface
CDI_KIND = r"^[A-Za-z][A-Za-z0-9_.-]{0,62}[A-Za-z0-9]/[A-Za-z]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?$"
# What a plain platform stands for: the profile that assumes nothing else of the machine.
PLATFORM_PROFILES = {"linux/amd64": "x86-cpu", "linux/arm64": "arm64-cpu", "linux/arm/v7": "armv7-cpu"}
# cpuset(7), "List format".
CPU_SET = r"^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?){0,63}$"
MEDIA_TYPE = r"^[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}$"
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


def at_least(shortest: timedelta) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if value < shortest:
            raise ValueError(f"expected at least {shortest / timedelta(seconds=1):g}s")
        return value

    return AfterValidator(check)


def not_boolean(value: object) -> object:
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


def no_removal(value: str) -> str:
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


def _model_path(value: str) -> str:
    return _absolute_path(value) if value.startswith("/") else _relative_path(value)


def no_blank_end(value: str) -> str:
    if value != value.rstrip():
        raise ValueError("expected a path that does not end in a blank, which builders of images drop")
    return value


def printable(value: str) -> str:
    if has_controls(value.replace("\t", "")):
        raise ValueError("control characters and line breaks are not allowed")
    return value


def _scalar_text(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


Name = Annotated[str, Field(pattern=NAME)]
Text = Annotated[
    str,
    BeforeValidator(_scalar_text),
    Field(max_length=4096, json_schema_extra={"format": "text"}),
    AfterValidator(printable),
]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
# Formats are what controller.spec.form and controller.spec.schema tell beside a type.
Size = Annotated[int, BeforeValidator(_size), Field(json_schema_extra={"format": "size"})]
_PATH = Field(json_schema_extra={"format": "path"})
RelativePath = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_relative_path), _PATH]
# One of the files, or what a volume has at an absolute path.
ModelPath = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_model_path), _PATH]
AbsolutePath = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_absolute_path), _PATH]
PortNumber = Annotated[int, Field(ge=1, le=65535, strict=True)]
Environment = dict[Annotated[str, Field(pattern=ENV_NAME)], Text]
Labels = dict[Annotated[str, Field(pattern=LABEL)], Annotated[Text, Field(max_length=63)]]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
