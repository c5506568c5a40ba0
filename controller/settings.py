"""The controller's settings: `controller.yml` in its data folder, made by `longshore-controller init`."""

import re
import stat
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from controller.errors import OperatorError
from controller.files import write_durably

FILE_NAME = "controller.yml"


class InvalidSettings(OperatorError):
    """The settings cannot be used; the text names file, field and what is allowed."""


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("expected host:port")
    return value


Address = Annotated[str, AfterValidator(_address)]
HOST_URL = re.compile(
    r"ssh://[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[A-Za-z0-9_.-]+)+"
    r"|tls://[A-Za-z0-9][A-Za-z0-9.-]*:[0-9]{1,5}"
)


def _host_url(value: str) -> str:
    if not HOST_URL.fullmatch(value):
        raise ValueError("expected ssh://user@host[:port]/run/podman/podman.sock or tls://host:port")
    return value


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Endpoint(Part):
    """Where a server listens, and the address that others are told."""

    listen: Address
    address: Address


class Broker(Part):
    """The MQTT broker. `ca_file`: PEM that verifies it; the installation's own CA where it is not given. `listen`:
    where the one of `--with-broker` listens; all addresses of the machine, at the same port, where it is not given."""

    address: Address
    listen: Address | None = None
    ca_file: Path | None = None


class Registry(Part):
    """The OCI registry. `ca_file` and `listen` as for the broker."""

    address: Address
    listen: Address | None = None
    ca_file: Path | None = None


class BuilderHost(Part):
    """A further machine that builds: its Podman service, over ssh or over TLS with certificates of both sides."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    # ssh://user@host[:port]/path/of/podman.sock or tls://host:port
    url: Annotated[str, AfterValidator(_host_url)]
    # What it can build: the machine's own platform, which it is asked for where none is given, and those by emulation.
    platforms: tuple[Literal["linux/amd64", "linux/arm64", "linux/arm/v7"], ...] = ()
    # Builds at a time.
    slots: int = Field(default=2, ge=1, le=64)
    # ssh: the private key, and the file that names the host's key.
    ssh_key: Path | None = None
    known_hosts: Path | None = None
    # TLS: what verifies the other side, and what it verifies us by. The controller's own where they are not given.
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class Builds(Part):
    """How many targets are built at a time, and what building may use of this machine."""

    parallel: int = Field(default=2, ge=1, le=64)
    # Of one user, however much room there is.
    parallel_per_user: int = Field(default=2, ge=1, le=64)
    # For so long an identical request is answered with what was built before; 0 for never.
    reuse_hours: float = Field(default=24.0, ge=0, le=24 * 365)
    # For so long, and three times at least, a target whose failure may pass is tried.
    retry_hours: float = Field(default=24.0, gt=0, le=24 * 365)
    # Registries (host, or host:port) from which bases may be taken, besides ours and what target profiles name; any
    # where none is given.
    base_registries: tuple[str, ...] = ()
    # Where bootstrapped base images are kept; several controllers of one machine may share it.
    base_cache: Path | None = None
    # A mirror of the distribution for bootstrapped bases; the distribution's own where it is not given.
    bootstrap_mirror: str = ""
    # Certificates (PEM) that package downloads trust during builds; the system's where it is not given.
    ca_bundle: Path | None = None
    # The network of build steps: "host", the machine's own with what listens on its loopback addresses, or "private",
    # one of Podman's with its own loopback.
    network: Literal["host", "private"] = "host"
    # Target profiles and runtimes of the operator's own, which add to ours or override them.
    targets_folder: Path | None = None
    runtimes_folder: Path | None = None
    # Of the log of one build so much is kept, uncompressed: its beginning and its end.
    log_max_mib: int = Field(default=16, ge=1, le=4096)
    # Whether this machine builds, and which others do.
    local: bool = True
    hosts: tuple[BuilderHost, ...] = ()

    @model_validator(mode="after")
    def _somebody_builds(self) -> "Builds":
        names = [host.name for host in self.hosts]
        if len(set(names)) < len(names) or "local" in names:
            raise ValueError('every builder host needs a name of its own, other than "local"')
        if not self.local and not self.hosts:
            raise ValueError("with local: false there has to be a builder host")
        return self


class Devices(Part):
    """What holds for every device."""

    # Life of a device's certificate; the agent renews it after two thirds.
    certificate_days: float = Field(default=365, gt=0, le=3650)


class Archives(Part):
    """What an archive of a build's files may unpack to."""

    max_gib: float = Field(default=64, gt=0)
    max_files: int = Field(default=100_000, ge=1)
    # Times the archive's own size; what unpacks to less than 256 MiB may.
    max_ratio: int = Field(default=200, ge=1)


class Housekeeping(Part):
    """For how long is kept what nothing needs any more. What a deployment uses or may return to is kept always."""

    enabled: bool = True
    interval_minutes: float = Field(default=60, gt=0)
    # Builds, their artifacts in the registry, bills of materials and logs.
    builds_days: float = Field(default=30, ge=0)
    # Of each name in a project so many builds that succeeded are kept, however old they are.
    builds_keep_last: int = Field(default=5, ge=0)
    # Of each deployment so many revisions are kept to return to.
    revisions_keep: int = Field(default=20, ge=1)
    # Versions of project volumes, from their last push on; and of each volume so many, however old they are.
    volumes_days: float = Field(default=90, ge=0)
    volumes_keep_last: int = Field(default=5, ge=1)
    # Files for builds, from their last use on.
    uploads_days: float = Field(default=7, ge=0)
    logs_days: float = Field(default=90, ge=0)
    # All logs together.
    logs_mib: int = Field(default=4096, ge=0)
    # The beginning of a project's log of events; of each log so many of the newest are kept, however old they are.
    events_days: float = Field(default=90, ge=0)
    events_keep_last: int = Field(default=1000, ge=1)
    # Layers and package caches in the builder's storage.
    cache_days: float = Field(default=30, ge=0)
    cache_gib: float = Field(default=50, ge=0)


class Settings(Part):
    """All settings."""

    # gRPC for users: TLS, bearer tokens; agents enroll here.
    public: Endpoint
    # gRPC for agents: mutual TLS.
    agents: Endpoint
    # HTTPS: the registry's token endpoint.
    web: Endpoint
    broker: Broker
    registry: Registry
    builds: Builds = Builds()
    archives: Archives = Archives()
    devices: Devices = Devices()
    housekeeping: Housekeeping = Housekeeping()
    # Uploads are refused, and builds do not begin, while less than this is free.
    min_free_mib: int = Field(default=1024, ge=0)


def load_settings(data_dir: Path) -> Settings:
    """Raises InvalidSettings."""
    path = data_dir / FILE_NAME
    try:
        return Settings.model_validate(yaml.safe_load(path.read_text()))
    except FileNotFoundError as error:
        raise InvalidSettings(f"{path} is missing; make it: longshore-controller init --data-dir {data_dir}") from error
    except yaml.YAMLError as error:
        raise InvalidSettings(f"{path}: {error}") from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise InvalidSettings(f"{path}: " + "; ".join(problems)) from error


def save_settings(data_dir: Path, settings: Settings) -> None:
    """Afterwards the file has these; until then, also after a power cut or on a full disk, those of before. A link
    and the file's mode stay as they are."""
    text = yaml.safe_dump(settings.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    path = (data_dir / FILE_NAME).resolve()
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
    write_durably(path, text.encode(), mode)


def split(address: str) -> tuple[str, int]:
    """Host and port of an address that was validated."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
