"""One container as Podman's inspect describes it, and what that says about an instance."""

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edge_agent.podman.spec import LABEL
from edge_agent.runtime.backend import Handle, Observed, Phase

HANDLE_VERSION = 1
# Programs whose files are damaged fail while they are loaded.
EARLY_SECONDS = 30.0
# Neither is about to run nor runs: what a power cut leaves, and what was never started.
UNSTARTED = ("created", "configured", "initialized", "unknown")
RUNNING = ("running", "paused", "stopping")
# By which Podman 5 says that its monitor has died before it wrote down how the container ended.
UNKNOWN_CODE = -1
REAL_TIME_SIGNAL = re.compile(r"(RTMIN(?=\+)|RTMAX(?=-))([+-]\d{1,2})")


@dataclass(frozen=True)
class Container:
    """Pids are 0 where there is no process; times in seconds since the epoch."""

    id: str
    labels: Mapping[str, str]
    state: str
    pid: int
    monitor_pid: int
    started_at: float
    finished_at: float
    exit_code: int
    out_of_memory: bool
    memory_limit: int
    stop_signal: int
    log_path: str
    # Container port -> (address, port) on this device.
    published: Mapping[int, tuple[str, int]]
    # "NAME=value" as its first process has them, those of its accelerators (CDI) included: Podman gives those to no
    # command inside by itself.
    environment: tuple[str, ...] = ()
    # Podman lists it and cannot read it: nothing of it can be started again.
    damaged: bool = False
    # Its process has gone, and nobody was left to write down how.
    unwatched: bool = False

    @property
    def handle(self) -> Handle:
        return Handle(HANDLE_VERSION, self.id)

    @property
    def key(self) -> tuple[str, int]:
        return self.labels[f"{LABEL}.deployment"], int(self.labels[f"{LABEL}.revision"])

    @property
    def claims_to_run(self) -> bool:
        """What Podman believes; only its process tells whether it is so."""
        return self.state in RUNNING

    @property
    def ended(self) -> bool:
        return not self.claims_to_run and self.state not in UNSTARTED

    @property
    def digest(self) -> str:
        """Of its image."""
        return self.labels.get(f"{LABEL}.digest", "")

    @property
    def failed_early(self) -> bool:
        """Whether it ended as one does whose image has damaged files: soon, and with an error of its own."""
        lived = self.finished_at - self.started_at
        return self.ended and self.exit_code > 0 and lived < EARLY_SECONDS and not self.damaged

    @property
    def stage(self) -> int:
        """Grows over the life of a container."""
        return 2 if self.ended else 1 if self.claims_to_run else 0

    @property
    def ports(self) -> Mapping[str, int]:
        """The container's port of each name."""
        pairs = [entry.partition("=") for entry in self.labels[f"{LABEL}.ports"].split(",") if entry]
        return {name: int(port) for name, _, port in pairs}

    @property
    def cpu_set(self) -> str:
        """The cores that were chosen for it; empty for all."""
        return self.labels.get(f"{LABEL}.cores", "")

    @property
    def volumes(self) -> frozenset[str]:
        """Digests of the versions of project volumes that it mounts."""
        return frozenset(self.labels.get(f"{LABEL}.volumes", "").split(",")) - {""}

    @property
    def secret_folder(self) -> str:
        return self.labels.get(f"{LABEL}.secrets", "")

    def addresses(self) -> tuple[tuple[str, tuple[str, int]], ...]:
        if self.labels.get(f"{LABEL}.network") == "host":
            return tuple((name, ("127.0.0.1", port)) for name, port in self.ports.items())
        return tuple((name, self.published[port]) for name, port in self.ports.items() if port in self.published)


def parse(inspected: Mapping[str, Any]) -> Container:
    """From the answer of `GET containers/<id>/json`."""
    state, config, host = inspected["State"], inspected["Config"], inspected["HostConfig"]
    return Container(
        id=inspected["Id"],
        labels=config.get("Labels") or {},
        state=_state(state),
        pid=int(state.get("Pid") or 0),
        monitor_pid=int(state.get("ConmonPid") or 0),
        started_at=_seconds(state.get("StartedAt")),
        finished_at=_seconds(state.get("FinishedAt")),
        exit_code=int(state.get("ExitCode") or 0),
        out_of_memory=bool(state.get("OOMKilled")),
        memory_limit=int(host.get("Memory") or 0),
        stop_signal=_signal_number(config.get("StopSignal")),
        log_path=(host.get("LogConfig") or {}).get("Path") or "",
        published=_published((inspected.get("NetworkSettings") or {}).get("Ports") or {}),
        environment=tuple(config.get("Env") or ()),
    )


def parse_listed(entry: Mapping[str, Any], *, runs: bool) -> Container:
    """From an entry of `GET containers/json`, where inspect fails; `runs`: its process was seen."""
    return Container(
        id=str(entry["Id"]),
        labels=entry.get("Labels") or {},
        state="running" if runs else "exited",
        pid=int(entry.get("Pid") or 0),
        monitor_pid=0,
        started_at=max(0.0, float(entry.get("StartedAt") or 0)),
        finished_at=0.0,
        exit_code=0,
        out_of_memory=False,
        memory_limit=0,
        stop_signal=int(signal.SIGTERM),
        log_path="",
        published={},
        damaged=True,
    )


def observed(container: Container, *, runs: bool, starting: bool, exit_reason: str = "") -> Observed:
    """`runs`: its process was seen; `starting`: this agent is about to start it."""
    phase = Phase.RUNNING if runs else Phase.CREATED if starting else Phase.EXITED
    known_end = (
        phase is Phase.EXITED and container.ended and not container.damaged and container.exit_code != UNKNOWN_CODE
    )
    deployment_id, revision = container.key
    return Observed(
        handle=container.handle,
        deployment_id=deployment_id,
        revision=revision,
        artifact_digest=container.labels[f"{LABEL}.digest"],
        phase=phase,
        started_at=container.started_at,
        # The end is stamped by another program than the start, with a coarser clock.
        finished_at=max(container.finished_at, container.started_at) if known_end else 0.0,
        exit_code=container.exit_code if known_end else None,
        exit_reason=exit_reason,
        addresses=container.addresses() if runs else (),
    )


def _state(state: Mapping[str, Any]) -> str:
    """What a power cut has ended has never come to an end: Podman 4 says that it was created, Podman 5 that it exited
    with 0, at no time."""
    told = str(state["Status"]).lower()
    return "unknown" if told == "exited" and not _seconds(state.get("FinishedAt")) else told


def _seconds(text: str | None) -> float:
    moment = datetime.fromisoformat(text) if text else None
    return moment.timestamp() if moment is not None and moment.year > 1 else 0.0


def _signal_number(given: object) -> int:
    """Podman 4 tells a number, Podman 5 a name ("SIGTERM", "SIGRTMIN+3"). TERM for what this machine does not know."""
    name = str(given or "").upper().removeprefix("SIG")
    if name.isdigit():
        number = int(name)
    elif found := REAL_TIME_SIGNAL.fullmatch(name):
        number = signal.Signals[f"SIG{found[1]}"] + int(found[2])
    else:
        number = signal.Signals.__members__.get(f"SIG{name}", signal.SIGTERM)
    return int(number) if number in signal.valid_signals() else int(signal.SIGTERM)


def _published(ports: Mapping[str, Any]) -> dict[int, tuple[str, int]]:
    found = {}
    for name, bindings in ports.items():
        number, _, protocol = name.partition("/")
        if protocol == "tcp" and bindings:
            host = bindings[0].get("HostIp") or ""
            address = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
            found[int(number)] = (address, int(bindings[0]["HostPort"]))
    return found
