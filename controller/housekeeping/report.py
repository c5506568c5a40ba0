"""What housekeeping would remove now, for an operator to read."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from controller.builds.logs import BuildLogs
from controller.builds.model import RegistryAccess
from controller.builds.uploads import UploadStore
from controller.events.model import NO_PROJECT, Project
from controller.housekeeping.assembly import housekeeper, journal_of
from controller.housekeeping.keeper import Findings
from controller.settings import load_settings
from controller.setup import DataFolder
from controller.store import open_store

NOBODY = RegistryAccess("", None, lambda: ("", ""))


async def report(root: Path) -> str:
    """One line for each thing, and their number; also beside a controller that runs. Raises InvalidSettings."""
    settings = load_settings(root)
    with contextlib.closing(open_store(DataFolder(root).database)) as store:
        logs = BuildLogs(root / "logs", clear_up=False)
        uploads = UploadStore(root / "uploads")
        keeper = housekeeper(root, settings.housekeeping, store, uploads, logs, NOBODY, journal_of(root))
        return "\n".join(_lines(await keeper.look()))


def _lines(found: Findings) -> Iterator[str]:
    lines = [f"build {build_id}" for build_id in found.builds.builds]
    lines += [f"artifact {each.repository}@{each.digest}" for each in sorted(found.builds.artifacts)]
    lines += [f"upload {content.digest} ({content.size} bytes)" for content in found.uploads]
    lines += [f"log of build {build_id}" for build_id in found.logs]
    lines += [f"layers {name}" for name in found.layers]
    lines += [f"volume {each.name}@{each.digest}" for each in found.volumes]
    lines += [f"{count} events of {_log(project)}" for project, count in found.events.items()]
    yield from lines
    yield f"{len(lines)} things would be removed" if lines else "nothing would be removed"


def _log(project: Project) -> str:
    return "devices" if project == NO_PROJECT else f"{project.user_id}/{project.project_id}"
