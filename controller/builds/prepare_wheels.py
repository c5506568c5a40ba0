"""The virtual environment of a foreign architecture, laid out from ready-made wheels: the same files as a step in the
image would make, without running anything of the target."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.builds import host, processes
from controller.builds.byte_code import compile_packages, find_python
from controller.builds.cancelling import in_thread
from controller.builds.host_settings import HostSettings
from controller.builds.log import BuildLog
from controller.builds.outcome import build_failure
from controller.builds.podman import Podman
from controller.builds.prepare_base import BaseFiles
from controller.builds.prepare_layout import VENV, Interpreter, finish, write_venv
from controller.builds.requirements import Requirements
from controller.builds.settings import BuilderSettings
from controller.builds.targets import TargetProfile
from controller.rendering.packages import requirements_list

SOURCE_ONLY = re.compile(r"Wheels are required for `([^`]+)`")
# The loader of Alpine and its like.
MUSL = re.compile(r"/(usr/)?lib/ld-musl-[^/]+\.so\.1")
GLIBC = re.compile(r"/(?:usr/)?lib(?:64|/[^/]+-linux-gnu[^/]*)?/libc-(\d+)\.(\d+)\.so")
# Versions of glibc for which uv knows wheels' platforms, lowest first.
GLIBC_TAGS = ("2_17", "2_28", "2_31", "2_32", "2_33", "2_34", "2_35", "2_36", "2_37", "2_38", "2_39", "2_40")
# What a user of this machine set for other purposes.
PERSONAL = ("UV_", "PIP_", "PYTHON", "VIRTUAL_ENV", "CONDA_")


@dataclass(frozen=True)
class WheelsTool:
    """uv of this machine, for one platform; `cache` outlives builds, and has only what indexes have."""

    podman: Podman
    settings: BuilderSettings
    host: HostSettings
    profile: TargetProfile

    @property
    def cache(self) -> Path:
        return self.podman.cache / "foreign-wheels"

    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in self.podman.environment().items() if not name.startswith(PERSONAL)}
        quiet = {"UV_NO_PROGRESS": "1", "UV_NO_WRAP": "1", "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}
        return {**own, **self.host.native_environment(), **quiet, "UV_CACHE_DIR": str(self.cache)}


async def lay_out(
    tool: WheelsTool, base: BaseFiles, requirements: Requirements, target: Path, scratch: Path, log: BuildLog
) -> tuple[str, tuple[str, ...]]:
    """Writes the environment as an archive to `target`. Returns why it cannot be done without the target's CPU, and
    notes. Raises BuildFailed with the reasons of the step that it stands for."""
    uv, python = host.uv_program(tool.settings), base.which("python3")
    version = python_version(base, python) if python else ""
    if reason := _impossible(tool, uv is not None, python, version):
        return reason, ()
    assert uv is not None
    assert python is not None
    native = await _native_python(tool, uv, version)
    venv = scratch / VENV.lstrip("/")
    listing = requirements_list(requirements.pypi, requirements.pypi_indexes)
    wishes = scratch / "requirements"
    await in_thread(wishes.write_text, listing.text)
    argv = [
        str(uv), "pip", "install", "--no-config", "--python", str(venv / "bin/python"), "--only-binary", ":all:",
        "--python-platform", wheels_platform(tool.profile, base), "--python-version", version, "-r", str(wishes),
    ]  # fmt: skip
    await _run([str(uv), "venv", "-q", "--no-config", "--python", native.program, str(venv)], tool.environment(), log)
    log("system", f"fetching {listing.count} Python packages for {tool.profile.platform}, without emulation")
    status, lines = await _run(argv, tool.environment(), log)
    if found := next((match[1] for line in lines if (match := SOURCE_ONLY.search(line))), None):
        return f"the Python package {found} has no wheel for {tool.profile.platform}", ()
    if status != 0:
        step = f"STEP 1/1: RUN : 'uv pip install ({listing.count} packages)'"
        raise build_failure([step, *lines], status, tool.profile.platform)
    interpreter = Interpreter(python, version, base.real(python))
    await in_thread(finish, venv, interpreter)
    notes = await _compile(native, venv, version, tool, log)
    await in_thread(write_venv, venv, target)
    return "", notes


def python_version(base: BaseFiles, python: str) -> str:
    """Of the base's Python, as exactly as its files tell: "3.11.2", or "3.11"."""
    match = re.fullmatch(r"python(3\.\d+)", base.real(python).rpartition("/")[2])
    if match is None:
        return ""
    minor = match[1]
    told = base.environment.get("PYTHON_VERSION", "") if python.startswith("/usr/local/") else ""
    packaged = installed_version(base, f"python{minor}-minimal").partition("-")[0].partition("+")[0]
    found = next((one for one in (told, packaged) if re.fullmatch(rf"{re.escape(minor)}\.\d+", one)), "")
    return found or minor


def wheels_platform(profile: TargetProfile, base: BaseFiles) -> str:
    """The profile's, for the C library that the base really has where that can be seen."""
    match = re.fullmatch(r"(\w+)-manylinux_(\d+_\d+)", profile.wheels)
    if match and has_musl(base):
        return f"{match[1]}-unknown-linux-musl"
    found = glibc_version(base)
    if match is None or not found:
        return profile.wheels
    usable = [tag for tag in GLIBC_TAGS if tuple(map(int, tag.split("_"))) <= found]
    return f"{match[1]}-manylinux_{usable[-1]}" if usable else profile.wheels


def has_musl(base: BaseFiles) -> bool:
    return any(MUSL.fullmatch(path) for path in base.entries)


def glibc_version(base: BaseFiles) -> tuple[int, int] | None:
    """None where it cannot be seen. Before 2.34 the name of its file tells it."""
    named = next((found for path in base.entries if (found := GLIBC.fullmatch(path))), None)
    match = named or re.match(r"(\d+)\.(\d+)", installed_version(base, "libc6"))
    return (int(match[1]), int(match[2])) if match else None


def installed_version(base: BaseFiles, package: str) -> str:
    """As dpkg knows it; "" where it is not installed."""
    status = base.texts.get("/var/lib/dpkg/status", b"").decode(errors="replace")
    for paragraph in status.split("\n\n"):
        if (
            paragraph.lstrip("\n").startswith(f"Package: {package}\n")
            and "\nStatus: install ok installed\n" in paragraph
        ):
            found = re.search(r"^Version: (?:\d+:)?(\S+)$", paragraph, re.MULTILINE)
            return found[1] if found else ""
    return ""


def _impossible(tool: WheelsTool, has_uv: bool, python: str | None, version: str) -> str:
    platform = tool.profile.platform
    if not tool.profile.wheels:
        return f"ready-made Python packages for {platform} cannot be picked without its own Python"
    if not has_uv:
        return "the program uv is not on the controller's machine"
    if python is None or not version:
        return f"the version of the base's Python cannot be told from its files ({python or 'no python3'})"
    return ""


@dataclass(frozen=True)
class _Native:
    """A Python of this machine; `minor` is "3.11"."""

    program: str
    minor: str


async def _native_python(tool: WheelsTool, uv: Path, version: str) -> _Native:
    """Of the same minor version where there is one, since byte code is the same then; else any."""
    minor = ".".join(version.split(".")[:2])
    if program := await find_python(uv, minor, tool.environment()):
        return _Native(program, minor)
    anything = await processes.run([str(uv), "python", "find", "--no-config"], tool.environment())
    return _Native(anything.stdout.splitlines()[0] if anything.stdout else "python3", "")


async def _compile(native: _Native, venv: Path, version: str, tool: WheelsTool, log: BuildLog) -> tuple[str, ...]:
    minor = ".".join(version.split(".")[:2])
    if native.minor != minor:
        note = f"the Python packages have no byte code, since the controller's machine has no Python {minor}"
        log("system", note)
        return (note,)
    packages = venv / "lib" / f"python{minor}" / "site-packages"
    await compile_packages(native.program, packages, Path(str(venv).removesuffix(VENV)), tool.environment())
    return ()


async def _run(argv: list[str], environment: Mapping[str, str], log: BuildLog) -> tuple[int, list[str]]:
    lines: list[str] = []

    def keep(stream: str, text: str) -> None:
        # Where this machine's own Python lies is nobody's business.
        if not text.startswith("Using "):
            lines.append(text)
            log(stream, text)

    return await processes.stream(argv, environment, keep), lines
