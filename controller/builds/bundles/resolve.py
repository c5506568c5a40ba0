"""Resolves a bundle's packages for another platform and Python, by uv on this machine; nothing of them is run."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from controller.builds import processes
from controller.builds.bundles.lock import LockedWheel, NoWheel, read_lock
from controller.builds.bundles.platforms import ranks
from controller.builds.cancelling import in_thread
from controller.builds.host_settings import CA_PATH, HostSettings
from controller.builds.log import BuildLog
from controller.builds.model import BuildFailed
from controller.builds.outcome import MAX_LAST_LINES, build_failure
from controller.builds.requirements import Requirements
from controller.builds.targets import TargetProfile

STEP = "resolve the Python packages"
# As uv says that a package has no wheel, or none for the platform.
WITHOUT_WHEEL = re.compile(
    r"Because (?:all versions of |only )?([A-Za-z0-9._-]+)\S*(?: \S+)? (?:has|have) no (?:usable )?wheels"
    r"|Because ([A-Za-z0-9._-]+)\S* has no wheels with a matching"
)


class SourceOnly(BuildFailed):
    """The package `name` has no wheel that fits; one may be made from its source."""

    def __init__(self, name: str, profile: TargetProfile, last_lines: tuple[str, ...]) -> None:
        super().__init__(
            "SourceOnly",
            f"{name} has no wheel for Python {profile.python} on {profile.wheels}; pin a version that has one, name an "
            "index that has it in build.packages.pypi_indexes, or build an image, where it can be compiled",
            step=STEP,
            last_lines=last_lines,
        )
        self.name = name


# Nothing of this machine's own settings of uv or pip, but what HostSettings has of them.
OPTIONS = (
    "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-config", "--format", "pylock.toml",
    # Nothing of a package may run here, not even to learn what it needs.
    "--only-binary", ":all:",
)  # fmt: skip


async def resolve(
    uv: Path,
    requirements: Requirements,
    profile: TargetProfile,
    folder: Path,
    cache: Path,
    settings: HostSettings,
    log: BuildLog,
    made: Path | None = None,
) -> tuple[LockedWheel, ...]:
    """One wheel of each package, those that they need included. `folder` is this build's own; `made` one with wheels
    that take part, which no index has. Raises BuildFailed."""
    if not requirements.pypi:
        return ()
    if not profile.wheels or not profile.python:
        raise BuildFailed(
            "NoWheelsForTarget",
            f"Python packages for {profile.name} cannot be had without running its own Python; "
            "build an image, or leave out build.packages.pypi",
            step=STEP,
        )
    log("system", f"resolving {len(requirements.pypi)} requirements for Python {profile.python}, {profile.wheels}")
    await in_thread(_write, folder / "requirements.in", requirements.pypi)
    argv = [
        str(uv), *OPTIONS, "--python", sys.executable, "--python-platform", profile.wheels,
        "--python-version", profile.python, "--cache-dir", str(cache), "--output-file", str(folder / "pylock.toml"),
        *(("--find-links", str(made)) if made else ()), str(folder / "requirements.in"),
    ]  # fmt: skip
    status = await processes.stream(argv, environment(settings, requirements.pypi_indexes), log)
    if status != 0:
        raise _failure(log.recent(), status, profile)
    try:
        return read_lock((folder / "pylock.toml").read_text(), ranks(profile.python, profile.wheels))
    except NoWheel as error:
        raise SourceOnly(error.name, profile, ()) from error


def environment(settings: HostSettings, indexes: Sequence[str]) -> dict[str, str]:
    """For a uv on this machine. Index URLs, which may have passwords, are not among the arguments that all can see."""
    # In a step the certificates lie elsewhere than here.
    here = {
        name: str(settings.ca_bundle) if value == CA_PATH else value for name, value in settings.environment.items()
    }
    more = " ".join((*indexes, *here.get("UV_INDEX", "").split()))
    own = {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_WRAP": "1"}
    return {**os.environ, **here, **({"UV_INDEX": more} if more else {}), **own}


def _write(file: Path, requirements: Sequence[str]) -> None:
    file.write_text("".join(f"{requirement}\n" for requirement in requirements))


def _failure(lines: Sequence[str], status: int, profile: TargetProfile) -> BuildFailed:
    text = " ".join(" ".join(lines).split())
    if match := WITHOUT_WHEEL.search(text):
        return SourceOnly(match[1] or match[2], profile, tuple(lines[-MAX_LAST_LINES:]))
    failure = build_failure(lines, status, profile.platform)
    if failure.reason == "StepFailed":
        failure = BuildFailed("StepFailed", f"uv failed with status {status}; see the last lines", step=STEP)
    return BuildFailed(
        failure.reason,
        failure.message,
        step=STEP,
        last_lines=tuple(lines[-MAX_LAST_LINES:]),
        retryable=failure.retryable,
    )
