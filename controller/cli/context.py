"""Which controller the command speaks to, and as whom: a small YAML file."""

import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from controller.cli.errors import UsageProblem

DEFAULT_NAME = "default"
_KEYS = ("address", "token", "ca", "user", "project")


@dataclass(frozen=True)
class Context:
    """`ca` is the controller's CA in PEM; empty trusts what the system trusts."""

    address: str
    token: str
    ca: str = ""
    user: str = ""
    project: str = ""


def context_path(given: Path | None) -> Path:
    """The file in use: as given, or $LONGSHORE_CONTEXT, or the one in the person's configuration folder."""
    if given:
        return given
    if named := os.environ.get("LONGSHORE_CONTEXT"):
        return Path(named)
    configuration = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(configuration) / "longshore" / "context.yaml"


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
