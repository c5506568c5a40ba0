"""What an operator can set about an agent: a TOML file in its state folder, and flags that win over it."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

DEFAULT_STATE_DIR = Path("/var/lib/longshore-agent")
FILE_NAME = "agent.toml"
# A quiet device has to cost little where each megabyte is paid for. Ways through NAT stay open for longer: RFC 5382
# asks for two hours, and mobile networks keep five minutes.
DEFAULT_KEEPALIVE = 300.0
LOG_LEVELS = ("debug", "info", "warning", "error")
# By the type of a setting: what the file may hold, and what that is called.
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "float": ((int, float), "a number of seconds"),
    "str": ((str,), "a text in quotes"),
    "bool": ((bool,), "true or false"),
}

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

# Address of a running Podman service, such as "unix:///run/podman/podman.sock"; empty: the agent starts one on demand.
#podman_url = ""

# Whether the bare-metal agent may install the Debian packages that a bundle needs (apt-get).
#install_packages = false

# debug, info, warning or error.
#log_level = "info"
"""


class InvalidSettings(ValueError):
    """A setting that makes no sense; the text names it and says what is allowed."""


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
    # Empty: the agent starts a Podman service on demand.
    podman_url: str = ""
    # Whether the bare-metal agent installs the Debian packages that a bundle needs.
    install_packages: bool = False
    log_level: str = "info"

    def __post_init__(self) -> None:
        _require(self.poll_interval >= 1, "poll_interval", self.poll_interval, "at least 1 second")
        _require(self.resync_interval >= 1, "resync_interval", self.resync_interval, "at least 1 second")
        keepalive_fits = 5 <= self.keepalive <= 65_535
        _require(keepalive_fits, "keepalive", self.keepalive, "from 5 to 65535 seconds")
        _require(self.metrics_interval >= 1, "metrics_interval", self.metrics_interval, "at least 1 second")
        _require(self.log_level in LOG_LEVELS, "log_level", self.log_level, f"one of {', '.join(LOG_LEVELS)}")
        _require(not set(self.advertise_host) & set(" /\t\n"), "advertise_host", self.advertise_host, "a host name")
        url_known = self.podman_url == "" or self.podman_url.startswith(("unix://", "http+unix://", "tcp://"))
        _require(url_known, "podman_url", self.podman_url, "an address such as unix:///run/podman/podman.sock")

    @property
    def database_file(self) -> Path:
        return self.state_dir / "agent.db"


def load_settings(state_dir: Path, overrides: Mapping[str, object]) -> AgentSettings:
    """The settings of the file in `state_dir`, if there is one, with those of `overrides` that are not None on top.

    Raises InvalidSettings for a file that cannot be read, an unknown setting, or a value that makes no sense.
    """
    values = _read(state_dir / FILE_NAME)
    values.update({name: value for name, value in overrides.items() if value is not None})
    try:
        return AgentSettings(**asdict(_typed(values, state_dir)))
    except InvalidSettings as error:
        raise InvalidSettings(f"{error} (in {state_dir / FILE_NAME} or on the command line)") from None


def write_template(state_dir: Path) -> None:
    """A settings file with every setting explained and none set, where there is no file yet."""
    path = state_dir / FILE_NAME
    if not path.exists():
        path.write_text(TEMPLATE)


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSettings(f"cannot read {path}: {error}") from error


def _typed(values: Mapping[str, object], state_dir: Path) -> AgentSettings:
    known = {field.name: field for field in fields(AgentSettings) if field.name != "state_dir"}
    for name, value in values.items():
        if name not in known:
            raise InvalidSettings(f"unknown setting {name!r}; known are {', '.join(known)}")
        wanted, kind = KINDS[str(getattr(known[name].type, "__name__", known[name].type))]
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            raise InvalidSettings(f"{name} = {value!r}: expected {kind}")
    return AgentSettings(state_dir=state_dir, **values)  # type: ignore[arg-type]  # checked above, field by field


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise InvalidSettings(f"{name} = {value!r}: expected {allowed}")
