"""Reads this machine's settings and writes them as secrets of one build."""

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from controller.builds import processes
from controller.builds.host_settings import (
    APT_SECRET,
    CA_SECRET,
    ENV_SECRET,
    STEPS_APT_SECRET,
    STEPS_ENV_SECRET,
    UV_SECRET,
    HostSettings,
    pip_config_files,
    read_host_settings,
)
from controller.builds.settings import BuilderSettings


async def read(settings: BuilderSettings) -> HostSettings:
    """The settings as they are now: a proxy's password may change while the controller runs."""
    dump = ""
    if shutil.which("apt-config"):
        dump = (await processes.run(["apt-config", "dump", "Acquire"], os.environ)).stdout
    files = pip_config_files(os.environ)
    return await asyncio.to_thread(read_host_settings, os.environ, files, dump, settings.ca_bundle)


def write_secrets(
    folder: Path,
    settings: HostSettings,
    steps: HostSettings,
    programs: Mapping[str, Path],
    values: Mapping[str, bytes],
) -> dict[str, Path]:
    """Files by secret name: the machine's settings, those of them for `build.steps`, programs that steps may use, and
    the user's own `values`. Only this user can read them; the caller removes `folder`."""
    folder.mkdir(mode=0o700)
    texts = {
        **values,
        STEPS_ENV_SECRET: steps.environment_script().encode(),
        STEPS_APT_SECRET: steps.apt_config.encode(),
        ENV_SECRET: settings.environment_script().encode(),
        APT_SECRET: settings.apt_config.encode(),
    }
    secrets = {}
    for name, text in texts.items():
        if text or name in values:
            secrets[name] = folder / name
            secrets[name].write_bytes(text)
    if settings.ca_bundle is not None:
        secrets[CA_SECRET] = settings.ca_bundle.resolve()
    secrets.update({name: path.resolve() for name, path in programs.items()})
    return secrets


def programs(settings: BuilderSettings) -> dict[str, Path]:
    """The programs of this machine that steps may use, by the name of their secret."""
    uv = uv_program(settings)
    return {} if uv is None else {UV_SECRET: uv}


def uv_program(settings: BuilderSettings) -> Path | None:
    """The program uv: as set, beside this Python, or on PATH."""
    beside = Path(sys.executable).with_name("uv")
    found = settings.uv or (beside if beside.exists() else None) or shutil.which("uv")
    return None if found is None else Path(found)
