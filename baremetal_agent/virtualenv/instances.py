"""The instances of one agent, each a folder that says what it is, what became of it, and whether somebody cares for it.

instance.json   what it is; written before anything runs
started, ended  written by whoever watches over it
lock            held by its supervisor for as long as that lives
log, log.1      what it wrote
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from baremetal_agent.supervisor.records import LAUNCH
from baremetal_agent.supervisor.records import Launch as Fields
from baremetal_agent.virtualenv.confinement import Confinement
from baremetal_agent.virtualenv.folders import DISCARDED, UNFINISHED
from edge_agent.runtime.backend import Handle
from edge_agent.runtime.fail_points import reach
from edge_agent.runtime.files import sync_file, sync_folder, write_durably

log = structlog.get_logger()

HANDLE_VERSION = 1
FORM = 1
INSTANCE, STARTED, ENDED, LOCK, LOG = "instance.json", "started", "ended", "lock", "log"


@dataclass(frozen=True)
class Instance:
    """What was known of it before it was started. `ports` are those at which it listens on this device."""

    id: str
    owner: str
    deployment_id: str
    revision: int
    digest: str
    name: str
    boot: str
    launcher: str
    ports: tuple[tuple[str, int], ...] = ()
    uid: int | None = None
    groups: tuple[int, ...] = ()
    allow: tuple[str, ...] = ()
    # Whether it has namespaces of its own.
    apart: bool = False
    cgroup: str = ""
    # The cores that were chosen for it, as in cpuset(7).
    cores: str = ""
    # Folder of its secrets, on no disk.
    secrets: str = ""
    # Digests of the versions of project volumes that it mounts.
    volumes: tuple[str, ...] = ()

    @property
    def handle(self) -> Handle:
        return Handle(HANDLE_VERSION, self.id)

    @property
    def confinement(self) -> Confinement:
        """Without its limits: for what joins it later."""
        return Confinement(self.uid, self.groups, frozenset(self.allow))

    @property
    def key(self) -> tuple[str, int]:
        return (self.deployment_id, self.revision)


@dataclass(frozen=True)
class Started:
    """`pid` is the workload's own process, which began at `began` (in ticks since the machine did); `init` the first
    process of its namespace, 0 without one."""

    pid: int
    began: int
    time: float
    init: int = 0


@dataclass(frozen=True)
class Ended:
    """`code` is None where nobody knows it."""

    code: int | None
    time: float
    reason: str = ""


class Instances:
    """Folders below `folder`. Blocks for next to nothing."""

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder = folder
        self._owner = owner

    def path(self, instance_id: str) -> Path:
        return self._folder / instance_id

    def create(self, instance: Instance) -> Path:
        """Afterwards its folder is there, and says what it is. What a power cut leaves of it before `settle` is gone by
        `sweep`."""
        folder = self.path(instance.id)
        fresh = folder.with_name(f"{UNFINISHED}{instance.id}")
        fresh.mkdir(mode=0o700, parents=True)
        (fresh / INSTANCE).write_text(json.dumps({"form": FORM, **asdict(instance)}, indent=1))
        (fresh / INSTANCE).chmod(0o600)
        reach("start.described")
        fresh.rename(folder)
        return folder

    def settle(self, instance: Instance) -> None:
        """Afterwards what it is outlives a power cut. Blocks for as long as the disk does."""
        sync_file(self.path(instance.id) / INSTANCE)
        sync_folder(self.path(instance.id))
        sync_folder(self._folder)

    def all(self) -> list[Instance]:
        """Of this owner. What cannot be read is left alone and told."""
        return list(self._read_all())

    def find(self, handle: Handle) -> Instance | None:
        if handle.version != HANDLE_VERSION or "/" in handle.value or handle.value[:1] in ("", "."):
            return None
        found = self._read(self.path(handle.value))
        return found if found is not None and found.owner == self._owner else None

    def started(self, instance: Instance) -> Started | None:
        found = _load(self.path(instance.id) / STARTED)
        return Started(**_known(Started, found)) if found else None

    def ended(self, instance: Instance) -> Ended | None:
        found = _load(self.path(instance.id) / ENDED)
        return Ended(**_known(Ended, found)) if found else None

    def environment(self, instance: Instance) -> dict[str, str]:
        """The variables that it was started with."""
        fields = Fields(_text(self.path(instance.id) / LAUNCH)).all("env")
        return {name: value for name, _, value in (entry.partition("=") for entry in fields)}

    def note_end(self, instance: Instance, ended: Ended) -> None:
        """Durable, if the disk takes it; for an end that nobody else has noted."""
        try:
            write_durably(self.path(instance.id) / ENDED, json.dumps(asdict(ended)).encode(), 0o600)
        except OSError as error:
            log.warning("end_not_noted", instance=instance.id, error=str(error))

    def lock(self, instance: Instance) -> int | None:
        """A descriptor that holds the instance for whoever inherits it; None where a supervisor does."""
        descriptor = os.open(self.path(instance.id) / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def supervisor(self, instance: Instance) -> int:
        """The number of the process that holds it; 0 where none does."""
        try:
            descriptor = os.open(self.path(instance.id) / LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(os.read(descriptor, 32) or 0)
        finally:
            os.close(descriptor)
        return 0

    async def discard(self, instance: Instance) -> None:
        """Nothing of its folder is left; what a break leaves is none of an instance any more, and goes by `sweep`. The
        log goes first: who follows it sees its end."""
        folder = self.path(instance.id)
        for name in (LOG, f"{LOG}.1"):
            (folder / name).unlink(missing_ok=True)
        discarded = folder.with_name(f"{DISCARDED}{folder.name}")
        with contextlib.suppress(FileNotFoundError):
            folder.rename(discarded)
        # One with a copy of its bundle's files is large.
        await asyncio.to_thread(shutil.rmtree, discarded, ignore_errors=True)

    def sweep(self) -> None:
        """What a break has left in the middle of a creation or a removal is gone. Not while either goes on."""
        for sort in (UNFINISHED, DISCARDED):
            for folder in self._folder.glob(f"{sort}*"):
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self._folder.glob("[!.]*"):
            if _is_torn(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def _read_all(self) -> Iterator[Instance]:
        for folder in sorted(self._folder.glob("[!.]*")):
            instance = self._read(folder)
            if instance is not None and instance.owner == self._owner:
                yield instance

    def _read(self, folder: Path) -> Instance | None:
        found = _load(folder / INSTANCE)
        if found is None:
            return None
        try:
            if found["form"] != FORM:
                raise ValueError(f"its form is {found['form']}")
            instance = Instance(**_known(Instance, found))
            ports = tuple((str(name), int(port)) for name, port in instance.ports)
            return replace(
                instance,
                ports=ports,
                groups=tuple(instance.groups),
                allow=tuple(instance.allow),
                volumes=tuple(instance.volumes),
            )
        except (ValueError, KeyError, TypeError) as error:
            log.error("instance_unreadable", folder=str(folder), error=str(error))
            return None


def _is_torn(folder: Path) -> bool:
    """Whether a power cut came before it was on the disk what the instance is: what ran then ended with the machine."""
    try:
        return not (folder / INSTANCE).read_bytes().strip(b"\0")
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _load(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Without what a newer agent may have added."""
    return {name: value for name, value in values.items() if name in kind.__dataclass_fields__}  # type: ignore[attr-defined]
