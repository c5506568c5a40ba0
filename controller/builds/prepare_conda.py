"""The environment of conda packages in `/opt/conda`, laid out from outside: the same for every architecture, without
running anything of the packages but, in a step, the scripts that some bring."""

import hashlib
import json
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from controller.builds import host, processes
from controller.builds.byte_code import compile_packages, find_python
from controller.builds.cancelling import in_thread
from controller.builds.conda.kept import Laid, keep, take
from controller.builds.conda.layout import PREFIX, Environment, Unusable, lay_out
from controller.builds.conda.model import Answer, Problem, Wish
from controller.builds.debian.tree import Node, write_tar
from controller.builds.host_settings import HostSettings
from controller.builds.log import BuildLog
from controller.builds.model import BuildFailed
from controller.builds.outcome import MAX_LAST_LINES
from controller.builds.podman import Podman
from controller.builds.prepare_base import BaseFiles
from controller.builds.prepare_wheels import PERSONAL, glibc_version, has_musl
from controller.builds.requirements import Requirements
from controller.builds.settings import BuilderSettings
from controller.builds.targets import TargetProfile

# Raised when the way to lay out changes, so that environments of before are not used.
REVISION = 1
SUBDIRS = {"amd64": "linux-64", "arm64": "linux-aarch64", "arm": "linux-armv7l"}
# What conda says of the processor of any device of an architecture.
PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64", "arm": "armv7l"}
# Where the base does not tell: that of the oldest systems for which packages are made.
OLDEST_GLIBC = (2, 17)
# Of the kernel of the device nothing is known; no current board has an older one.
KERNEL = "4.9"


@dataclass(frozen=True)
class CondaTool:
    """For one user and platform. `fresh`: nothing that was laid out before is taken."""

    podman: Podman
    settings: BuilderSettings
    host: HostSettings
    profile: TargetProfile
    user: str
    fresh: bool

    @property
    def cache(self) -> Path:
        """Channels and packages of one user: a channel may say anything of what it has."""
        return self.podman.cache / f"longshore-conda-{hashlib.sha256(self.user.encode()).hexdigest()[:16]}"

    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in self.podman.environment().items() if not name.startswith(PERSONAL)}
        return {**own, **self.host.native_environment(), "NO_COLOR": "1"}


async def lay_out_conda(
    tool: CondaTool, base: BaseFiles, requirements: Requirements, target: Path, scratch: Path, log: BuildLog
) -> Laid:
    """Writes the environment as an archive to `target`; `scratch` is an empty folder. One that was laid out before for
    the same wishes is taken again, as a layer would be. Raises BuildFailed."""
    if has_musl(base):
        raise BuildFailed(
            "BaseUnsuitable",
            "conda packages need glibc, and the base has musl: list its packages under build.packages.apk, or take "
            "another build.base",
        )
    wish = _wish(tool, base, requirements, scratch)
    kept, key = tool.cache / "environments", _key(wish)
    if not tool.fresh and (found := await in_thread(take, kept, key, target)):
        log("system", f"taking the environment of {len(wish.specs)} conda packages as it was laid out before")
        return found
    log("system", f"resolving {len(wish.specs)} conda packages for {tool.profile.platform}")
    answer = await _ask(tool, wish, scratch, log)
    await in_thread((scratch / "written").mkdir)
    try:
        environment = await in_thread(lay_out, answer.packages, scratch / "written")
    except Unusable as error:
        raise BuildFailed("PackageUnusable", f"a conda package cannot be used: {error}") from error
    environment, notes = await _with_byte_code(tool, environment, scratch / "compiled", log)
    await in_thread(write_tar, target, environment.entries.items())
    laid = Laid(environment.scripts, notes)
    await in_thread(keep, kept, key, target, laid)
    return laid


def _wish(tool: CondaTool, base: BaseFiles, requirements: Requirements, scratch: Path) -> Wish:
    architecture = tool.profile.architecture
    major, minor = glibc_version(base) or OLDEST_GLIBC
    virtual = (
        ("__unix", "0", "0"), ("__linux", KERNEL, "0"), ("__glibc", f"{major}.{minor}", "0"),
        ("__archspec", "1", PROCESSORS[architecture]),
    )  # fmt: skip
    channels = requirements.conda_channels
    return Wish(requirements.conda, channels, SUBDIRS[architecture], virtual, str(tool.cache), str(scratch))


def _key(wish: Wish) -> str:
    asked = [REVISION, version("py-rattler"), wish.specs, wish.channels, wish.subdir, wish.virtual]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


async def _ask(tool: CondaTool, wish: Wish, scratch: Path, log: BuildLog) -> Answer:
    asked, answered = scratch / "wish.json", scratch / "answer.json"
    await in_thread(wish.write, asked)
    lines: list[str] = []

    def keep(stream: str, text: str) -> None:
        lines.append(text)
        log(stream, text)

    argv = [sys.executable, "-m", "controller.builds.conda.program", str(asked), str(answered)]
    status = await processes.stream(argv, tool.environment(), keep)
    last = tuple(lines[-MAX_LAST_LINES:])
    step = f"conda ({len(wish.specs)} packages)"
    if status != 0 or not answered.exists():
        message = f"the program that resolves conda packages ended with status {status}"
        raise BuildFailed("StepFailed", message, step=step, last_lines=last)
    answer = await in_thread(Answer.read, answered)
    if answer.problem is not None:
        reason, message, retryable = _failure(answer.problem, answer.subject, wish)
        raise BuildFailed(reason, message, step=step, last_lines=last, retryable=retryable)
    return answer


def _failure(problem: Problem, subject: str, wish: Wish) -> tuple[str, str, bool]:
    """Reason, message, and whether it may pass."""
    channels = ", ".join(wish.channels)
    match problem:
        case Problem.MISSING:
            message = f"there is no package {subject} for {wish.subdir} in {channels}"
            return "PackageNotFound", f"{message}; correct build.packages.conda, or add a channel", False
        case Problem.NO_CHANNEL:
            message = f"a channel among {channels} is not there, or lacks what it names: {subject}"
            return "PackageNotFound", f"{message}; correct build.packages.conda", False
        case Problem.CONFLICT:
            message = "the conda packages exclude each other, or do not fit the target; see the last lines"
            return "PackageConflict", f"{message} and loosen a version", False
        case Problem.UNUSABLE:
            return "PackageUnusable", f"a conda package cannot be used: {subject}", False
        case Problem.INVALID:
            return "InvalidSpec", f"conda does not understand build.packages.conda: {subject}", False
        case Problem.DISK_FULL:
            return "DiskFull", "the builder's disk is full; free space or lower what builds keep", True
        case Problem.UNREACHABLE:
            message = f"a conda channel cannot be reached: {subject}"
            return "PackageIndexUnreachable", f"{message}; check proxy and CA settings, and {channels}", True


async def _with_byte_code(
    tool: CondaTool, environment: Environment, folder: Path, log: BuildLog
) -> tuple[Environment, tuple[str, ...]]:
    """Packages for any Python come without; it is made here, as installers do it."""
    python = environment.python
    if python is None or not environment.modules:
        return environment, ()
    uv = host.uv_program(tool.settings)
    program = await find_python(uv, python.minor, tool.environment()) if uv else ""
    if not program:
        note = (
            f"{len(environment.modules)} modules of conda packages have no byte code, since the controller's machine "
            f"has no Python {python.minor}"
        )
        log("system", note)
        return environment, (note,)
    await in_thread(_write_modules, environment, folder)
    packages = folder / PREFIX.lstrip("/") / python.packages
    await compile_packages(program, packages, folder, tool.environment())
    return replace(environment, entries=await in_thread(_with_compiled, environment.entries, folder)), ()


def _write_modules(environment: Environment, folder: Path) -> None:
    for path in environment.modules:
        if environment.entries[path].size:
            file = folder / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(environment.entries[path].read())


def _with_compiled(entries: Mapping[str, Node], folder: Path) -> Mapping[str, Node]:
    made: dict[str, Node] = {}
    for file in folder.rglob("__pycache__/*.pyc"):
        path = f"/{file.relative_to(folder)}"
        made[path.rpartition("/")[0]] = Node(kind=tarfile.DIRTYPE, mode=0o755)
        made[path] = Node(source=file, size=file.stat().st_size)
    return dict(sorted({**made, **entries}.items()))
