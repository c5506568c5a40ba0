"""Podman's own database (libpod's: bolt, since Podman 5 SQLite), without which it does not even start.

It knows containers, pods and volumes. Images lie elsewhere, as do the files of volumes: both outlive it.
"""

from collections.abc import Iterator, Set
from pathlib import Path

from edge_agent.podman.spec import VOLUME_PREFIX
from edge_agent.podman.storage.store import Store
from edge_agent.podman.storage.surgery import Untouchable

PROC = Path("/proc")
DATABASES = ("libpod/bolt_state.db", "db.sql", "db.sql-wal", "db.sql-shm")
SET_ASIDE = ".damaged"
# What bolt and SQLite say of a file that is none of theirs any more: all words of one of these. One that is held by
# others, or cannot be read, is not damaged.
TELL_TALES = (
    ("invalid database",),
    ("invalid freelist page",),
    ("page type is unknown",),
    ("bolt_state.db", "checksum error"),
    ("bolt_state.db", "file size too small"),
    ("go.etcd.io/bbolt", "unexpected fault address"),
    ("go.etcd.io/bbolt", "panic: "),
    ("database disk image is malformed",),
    ("file is not a database",),
)


def told_of(said: str) -> bool:
    """Whether Podman did not start because its database is damaged."""
    return any(all(word in said for word in words) for words in TELL_TALES)


def set_aside(store: Store, own: Set[str]) -> None:
    """Afterwards Podman makes a new database; the old one lies beside it. Raises Untouchable where something runs, or
    there is a container or a volume that is not this agent's: they would be forgotten."""
    ids = set(store.containers())
    names = [*_foreign(store, own), *(f"{container[:12]}, which runs" for container in _alive(ids))]
    if names:
        raise Untouchable(", ".join(names))
    for path in (store.root / name for name in DATABASES):
        if path.exists():
            path.replace(path.with_name(path.name + SET_ASIDE))


def left_aside(store: Store) -> Path | None:
    """The damaged database that was replaced by a new one."""
    paths = (store.root / f"{name}{SET_ASIDE}" for name in DATABASES)
    return next((path for path in paths if path.exists()), None)


def _foreign(store: Store, own: Set[str]) -> Iterator[str]:
    for container in store.containers().values():
        if container.id not in own:
            yield f"container {(container.names or (container.id[:12],))[0]}"
    volumes = store.root / "volumes"
    for volume in sorted(volumes.iterdir()) if volumes.is_dir() else ():
        if volume.is_dir() and not volume.name.startswith(VOLUME_PREFIX):
            yield f"volume {volume.name}"


def _alive(ids: Set[str]) -> Iterator[str]:
    """Those of which a process lives, or the monitor of one: its control group, its mounts or its command line names
    the container. Only what this user may read of a process is seen."""
    for process in PROC.glob("[0-9]*"):
        told = "".join(_text(process / name) for name in ("cgroup", "cmdline", "mountinfo"))
        yield from (container for container in ids if container in told)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
