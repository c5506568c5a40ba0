"""Housekeeping of one controller, put together from its settings."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from controller.builds.logs import BuildLogs
from controller.builds.materials_store import MaterialsStore
from controller.builds.model import RegistryAccess
from controller.builds.podman import Podman
from controller.builds.uploads import UploadStore
from controller.housekeeping.estate import Builders, Estate, NoBuilders
from controller.housekeeping.journal import Journal
from controller.housekeeping.keeper import Housekeeper
from controller.housekeeping.layers import LayerCache
from controller.housekeeping.plan import Policy
from controller.housekeeping.space import Space
from controller.settings import Housekeeping
from controller.store import Store
from controller.volumes.gate import PushGate

MIB, GIB = 2**20, 2**30


def policy(settings: Housekeeping) -> Policy:
    return Policy(
        builds_days=settings.builds_days,
        builds_keep_last=settings.builds_keep_last,
        revisions_keep=settings.revisions_keep,
        volumes_days=settings.volumes_days,
        volumes_keep_last=settings.volumes_keep_last,
        events_days=settings.events_days,
        events_keep_last=settings.events_keep_last,
        uploads_days=settings.uploads_days,
        logs_days=settings.logs_days,
        logs_bytes=settings.logs_mib * MIB,
        cache_days=settings.cache_days,
        cache_bytes=int(settings.cache_gib * GIB),
    )


def journal_of(root: Path) -> Journal:
    return Journal(root / "housekeeping.json")


def housekeeper(
    root: Path,
    settings: Housekeeping,
    store: Store,
    uploads: UploadStore,
    logs: BuildLogs,
    access: RegistryAccess,
    journal: Journal,
    *,
    builders: Builders | None = None,
    space: Space | None = None,
    collect: Callable[[], Awaitable[None]] | None = None,
    pushes: PushGate | None = None,
) -> Housekeeper:
    """Of the data folder `root`, whose journal is `journal_of(root)`. `collect` as Estate says."""
    who, disks = builders or NoBuilders(), space or Space({}, 0)
    packages = [root / "bundles" / name for name in ("uv", "wheels")]
    layers = LayerCache(Podman(root / "builder"), lambda: who.busy, packages)
    estate = Estate(
        store, uploads, logs, MaterialsStore(root / "materials"), layers, access, journal, root / "registry", collect,
        who, pushes or PushGate(), disks,
    )  # fmt: skip
    return Housekeeper(estate, policy(settings), settings.interval_minutes * 60)
