"""What an operator can set about an agent: a TOML file in its state folder, and flags that win over it."""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

DEFAULT_STATE_DIR = Path("/var/lib/longshore-agent")
FILE_NAME = "agent.toml"
# A quiet device has to cost little where each megabyte is paid for. Ways through NAT stay open for longer: RFC 5382
# asks for two hours, and mobile networks keep five minutes.
DEFAULT_KEEPALIVE = 300.0
LOG_LEVELS = ("debug", "info", "warning", "error")
# By the type of a setting's default: what the file may hold, and what that is called.
KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    float: ((int, float), "a number of seconds"),
    str: ((str,), "a text in quotes"),
    bool: ((bool,), "true or false"),
}
# Fields of `AgentSettings` that are no settings.
NOT_SET = ("state_dir", "own")

TEMPLATE = """\
# Settings of the Longshore agent. Flags of `run` win over this file.

# Address under which clients reach the workloads of this device; empty: this device's address on its way to the
# controller.
#advertise_host = ""

# Seconds between two looks at the controller while the broker is out of reach, and while all is well.
#poll_interval = 60.0
#resync_interval = 43200.0

# Seconds without a message after which the broker is asked whether it is still there. A device that lost its power or
# its network without a word is shown as offline after one and a half times as long.
#keepalive = 300.0

# Seconds between two messages about what the instances use.
#metrics_interval = 1800.0

# debug, info, warning or error.
#log_level = "info"
"""


class InvalidSettings(ValueError):
    """A setting that makes no sense; the text names it and says what is allowed."""


def _anything(_value: Any) -> str:
    return ""


@dataclass(frozen=True)
class Option:
    """A setting that one agent has besides those of all. A value is of the default's type."""

    name: str
    default: str | float | bool
    # What it is, for people: a phrase.
    help: str
    # Of a value that makes no sense: what is allowed; "" of all others.
    allowed: Callable[[Any], str] = _anything

    @property
    def template(self) -> str:
        """As it stands in the settings file."""
        return f"\n# {self.help[0].upper()}{self.help[1:]}.\n#{self.name} = {json.dumps(self.default)}\n"


@dataclass(frozen=True)
class AgentSettings:
    """Times in seconds. Raises InvalidSettings for a value that makes no sense."""

    state_dir: Path = DEFAULT_STATE_DIR
    # Empty: the local address of a connection to the controller.
    advertise_host: str = ""
    poll_interval: float = 60.0
    resync_interval: float = 43200.0
    keepalive: float = DEFAULT_KEEPALIVE
    metrics_interval: float = 1800.0
    log_level: str = "info"
    # The agent's own ones by their names; all of its options are there.
    own: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(self.poll_interval >= 1, "poll_interval", self.poll_interval, "at least 1 second")
        _require(self.resync_interval >= 1, "resync_interval", self.resync_interval, "at least 1 second")
        keepalive_fits = 5 <= self.keepalive <= 65_535
        _require(keepalive_fits, "keepalive", self.keepalive, "from 5 to 65535 seconds")
        _require(self.metrics_interval >= 1, "metrics_interval", self.metrics_interval, "at least 1 second")
        _require(self.log_level in LOG_LEVELS, "log_level", self.log_level, f"one of {', '.join(LOG_LEVELS)}")
        _require(not set(self.advertise_host) & set(" /\t\n"), "advertise_host", self.advertise_host, "a host name")

    @property
    def database_file(self) -> Path:
        return self.state_dir / "agent.db"


def load_settings(state_dir: Path, overrides: Mapping[str, object], options: Sequence[Option] = ()) -> AgentSettings:
    """The settings of the file in `state_dir`, if there is one, with those of `overrides` that are not None on top.

    `options` are those that only this agent has. Raises InvalidSettings for a file that cannot be read, an unknown
    setting, or a value that makes no sense.
    """
    values = _read(state_dir / FILE_NAME)
    values.update({name: value for name, value in overrides.items() if value is not None})
    try:
        return _settings(state_dir, values, options)
    except InvalidSettings as error:
        raise InvalidSettings(f"{error} (in {state_dir / FILE_NAME} or on the command line)") from None


def write_template(state_dir: Path, options: Sequence[Option] = ()) -> None:
    """A settings file with every setting explained and none set, where there is no file yet."""
    path = state_dir / FILE_NAME
    if not path.exists():
        path.write_text(TEMPLATE + "".join(option.template for option in options))


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSettings(f"cannot read {path}: {error}") from error


def _settings(state_dir: Path, values: Mapping[str, object], options: Sequence[Option]) -> AgentSettings:
    common = {each.name: KINDS[type(each.default)] for each in fields(AgentSettings) if each.name not in NOT_SET}
    known = {**common, **{option.name: KINDS[type(option.default)] for option in options}}
    for name, value in values.items():
        if name not in known:
            raise InvalidSettings(f"unknown setting {name!r}; known are {', '.join(known)}")
        wanted, kind = known[name]
        _require(isinstance(value, wanted) and (not isinstance(value, bool) or bool in wanted), name, value, kind)
    own = {option.name: values.get(option.name, option.default) for option in options}
    for option in options:
        allowed = option.allowed(own[option.name])
        _require(not allowed, option.name, own[option.name], allowed)
    given = {name: value for name, value in values.items() if name in common}
    return AgentSettings(state_dir=state_dir, own=own, **given)  # type: ignore[arg-type]  # checked above


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise InvalidSettings(f"{name} = {value!r}: expected {allowed}")
