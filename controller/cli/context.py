"""Which controller the command speaks to, and as whom: a small YAML file."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from controller.cli.errors import UsageProblem
from longshore.client import project
from longshore.v1 import types_pb2

DEFAULT_NAME = "default"
# As a name stands in a file's name.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_KEYS = ("address", "token", "ca", "user", "project")


@dataclass(frozen=True)
class Context:
    """`ca` is the controller's CA in PEM; empty trusts what the system trusts."""

    address: str
    token: str
    ca: str = ""
    user: str = ""
    project: str = ""


def configuration_folder() -> Path:
    """Where a person's contexts are kept."""
    configuration = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(configuration) / "longshore"


def context_path(given: str | None) -> Path:
    """The file in use: as given, or as $LONGSHORE_CONTEXT says, or the one that `longshore context use` chose.

    What has a slash or ends in .yaml or .yml is a file, everything else a name. Raises UsageProblem for no name.
    """
    chosen = given or meant_name()
    return Path(chosen) if is_file_name(chosen) else named_path(chosen)


def is_file_name(text: str) -> bool:
    return "/" in text or text.endswith((".yaml", ".yml"))


def named_path(name: str) -> Path:
    """The file of a context that goes by a name. Raises UsageProblem for what is no name."""
    if not NAME.fullmatch(name):
        raise UsageProblem(f"'{name}' is no name of a context: letters, digits, '.', '_', '-'; at most 63")
    folder = configuration_folder()
    return folder / "context.yaml" if name == DEFAULT_NAME else folder / "contexts" / f"{name}.yaml"


def meant_name() -> str:
    """The context, a name or a file, where no option names one: as $LONGSHORE_CONTEXT says, or else the one in use."""
    return os.environ.get("LONGSHORE_CONTEXT") or current_name()


def current_name() -> str:
    """The name of the context in use where nothing else is said."""
    try:
        return (configuration_folder() / "current").read_text().strip() or DEFAULT_NAME
    except (OSError, UnicodeDecodeError):
        return DEFAULT_NAME


def use_context(name: str) -> None:
    """Afterwards it is the one in use where nothing else is said."""
    path = configuration_folder() / "current"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".current.{os.getpid()}")
    draft.write_text(f"{name}\n")
    draft.replace(path)


def context_names() -> list[str]:
    """All that have a file, in order."""
    folder = configuration_folder()
    default = [DEFAULT_NAME] if (folder / "context.yaml").exists() else []
    return default + sorted(path.stem for path in (folder / "contexts").glob("*.yaml"))


def owner(context: Context, user: str, project_id: str) -> types_pb2.Project:
    """The project that is meant: as given, or else the context's."""
    return project(user or context.user or DEFAULT_NAME, project_id or context.project or DEFAULT_NAME)


def load_context(path: Path) -> Context:
    """Raises UsageProblem where there is no usable context."""
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        hint = "`longshore login --address HOST:PORT --ca FILE --token TOKEN` makes one; --context names another"
        raise UsageProblem(f"no context at {path}; {hint}") from None
    except OSError as error:
        raise UsageProblem(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    return _checked(path, data)


def _checked(path: Path, data: object) -> Context:
    values = data if isinstance(data, dict) else {}
    wrong = [str(key) for key, value in values.items() if key not in _KEYS or not isinstance(value, str)]
    missing = [key for key in ("address", "token") if not values.get(key)]
    if wrong or missing:
        said = [f"missing: {', '.join(missing)}"] if missing else []
        said += [f"not allowed or not text: {', '.join(wrong)}"] if wrong else []
        raise UsageProblem(f"{path}: {'; '.join(said)}; allowed: {', '.join(_KEYS)}")
    return Context(**values)


def save_context(path: Path, context: Context) -> None:
    """Afterwards the file is whole and readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {key: value for key in _KEYS if (value := getattr(context, key))}
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
        yaml.safe_dump(values, file, sort_keys=False)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
