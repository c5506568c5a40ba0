"""The builder's own Podman: a storage of its own, settings that work on restricted hosts, nothing of the host's."""

import hashlib
import json
import os
import resource
import shutil
from collections.abc import Sequence
from pathlib import Path

from controller.builds import processes
from controller.builds.cancelling import in_thread
from controller.builds.model import OnLine
from controller.builds.processes import Completed
from controller.files import write_durably

# In the environment of every process that is started for a builder; the value is the builder's folder.
MARKER = "LONGSHORE_BUILDER"
MARK_SECRET = "longshore-mark"
MAX_OPEN_FILES, MAX_PROCESSES = 16384, 32768
# Podman refuses a longer path of its run folder, since sockets lie in it.
MAX_RUN_PATH = 50


class Podman:
    """Runs `podman` on the storage below `folder`."""

    def __init__(self, folder: Path, storage_driver: str = "overlay") -> None:
        self.folder = folder.absolute()
        self.storage = self.folder / "storage"
        self.run_folder = _run_folder(self.folder)
        self.temporary = self.folder / "tmp"
        # What `RUN --mount=type=cache` keeps between builds: the caches of package managers.
        self.cache = self.folder / "cache"
        self._driver = storage_driver
        self._conf = self.folder / "containers.conf"

    def prepare(self) -> None:
        """Makes folders and settings. Idempotent, also while programs run that read the settings."""
        for folder in (self.storage, self.run_folder, self.temporary, self.cache):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        wanted = containers_conf().encode()
        # Nothing is written where nothing changes: the disk may be full.
        if not self._conf.exists() or self._conf.read_bytes() != wanted:
            write_durably(self._conf, wanted)

    def installed(self) -> bool:
        return shutil.which("podman") is not None

    async def run(self, *args: str, temporary: Path | None = None) -> Completed:
        """Runs one command to its end; a cancel ends it."""
        return await processes.run(self.argv(args), self.environment(temporary))

    async def build(self, args: Sequence[str], temporary: Path, on_line: OnLine) -> int:
        """`podman build`; its exit status, negative where something killed it. Nothing of it runs afterwards, also
        after a cancel; but in both cases `controller.builds.recovery.remove_build` has to follow."""
        await in_thread(self._make_scratch, temporary)
        argv = self.argv(["build", "--secret", f"id={MARK_SECRET},src={mark_of(temporary)}", *args])
        status = await processes.stream(argv, self.environment(temporary), on_line, processes.stop_build)
        if status < 0:
            await in_thread(processes.end_orphans, temporary)
        return status

    def _make_scratch(self, folder: Path) -> None:
        """A build's own folder for unfinished files, in which it finds the caches of all builds."""
        folder.mkdir(exist_ok=True)
        # Buildah keeps them below TMPDIR: https://github.com/containers/buildah/blob/v1.28.0/internal/parse/parse.go
        link = folder / "buildah-cache"
        if not link.is_symlink():
            link.symlink_to(self.cache)
        mark_of(folder).touch()

    def argv(self, args: Sequence[str]) -> list[str]:
        return [
            "podman", "--root", str(self.storage), "--runroot", str(self.run_folder / "root"),
            "--tmpdir", str(self.run_folder / "tmp"), "--storage-driver", self._driver, *args,
        ]  # fmt: skip

    def holds(self, image_id: str) -> bool:
        """Whether the image of this id is in the storage, without asking Podman."""
        return self.recorded(image_id) != 0

    def recorded(self, image_id: str) -> int:
        """A number for the storage's record of the image: another one when the image was removed and has come again;
        0 where it is not there."""
        try:
            return self.record(image_id).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def record(self, image_id: str) -> Path:
        """The folder that containers/storage keeps of each image (https://github.com/containers/storage, "images")."""
        return self.storage / f"{self._driver}-images" / image_id

    def layers(self, image_id: str) -> tuple[Path, ...]:
        """The folders of the image's layers, the topmost first, without asking Podman; none where they are not here,
        or not told.

        What containers/storage keeps (https://github.com/containers/storage, "images.json", "drivers/overlay").
        """
        if self._driver != "overlay":
            return ()
        overlay = self.storage / "overlay"
        try:
            images = json.loads((self.storage / "overlay-images" / "images.json").read_bytes())
            top = overlay / next(str(image["layer"]) for image in images if image["id"] == image_id)
            # The lowest layer has no such file.
            below = (top / "lower").read_text().split(":") if (top / "lower").exists() else ()
        except (OSError, ValueError, KeyError, StopIteration):
            return ()
        return (top / "diff", *(overlay / link for link in below))

    def containers_of(self, temporary: Path) -> list[str]:
        """Ids of the containers that a build with this folder for unfinished files has made, without asking Podman: by
        what Buildah keeps of each (https://github.com/containers/buildah, "CommonBuildOptions")."""
        states = (self.storage / f"{self._driver}-containers").glob("*/userdata/buildah.json")
        return [state.parents[1].name for state in states if str(mark_of(temporary)) in _secrets_of(state)]

    def environment(self, temporary: Path | None = None) -> dict[str, str]:
        """That of this process, with the builder's settings; `temporary` is where unfinished blobs go."""
        return {
            **os.environ,
            "CONTAINERS_CONF": str(self._conf),
            "TMPDIR": str(temporary or self.temporary),
            MARKER: str(self.folder),
        }


def mark_of(temporary: Path) -> Path:
    """A file of which every container of a build knows: given as a secret, which no step reads."""
    return temporary / "mark"


def _secrets_of(state: Path) -> str:
    """The secrets of a build, as the state of one of its containers has them; "" where it is just being written, or has
    gone."""
    try:
        return "\n".join(json.loads(state.read_bytes())["CommonBuildOpts"]["Secrets"] or ())
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _run_folder(folder: Path) -> Path:
    """In the builder's folder, or, where that has a long path, among the run time files of this user."""
    inside = folder / "run"
    if len(str(inside / "root")) <= MAX_RUN_PATH:
        return inside
    parent = Path("/run") if os.geteuid() == 0 else Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp"))
    return parent / f"longshore-{hashlib.sha256(str(folder).encode()).hexdigest()[:10]}"


def containers_conf() -> str:
    """Settings with which Podman builds here: no systemd, no right to raise limits, cgroups of either version."""
    files = _limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    tasks = _limit(resource.RLIMIT_NPROC, MAX_PROCESSES)
    lines = [
        "[containers]",
        f'default_ulimits = ["nofile={files}:{files}", "nproc={tasks}:{tasks}"]',
        "[engine]",
        'cgroup_manager = "cgroupfs"',
        'events_logger = "none"',
        # Locks in shared memory would be shared with the host's Podman.
        'lock_type = "file"',
    ]
    # crun refuses hybrid cgroups on older kernels; runc takes both.
    if shutil.which("runc"):
        lines.append('runtime = "runc"')
    if any(Path(folder, "netavark").exists() for folder in ("/usr/lib/podman", "/usr/libexec/podman")):
        lines += ["[network]", 'network_backend = "netavark"']
    return "\n".join(lines) + "\n"


def _limit(kind: int, wanted: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
