"""Reads this machine's settings and writes them as secrets of one build."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

from controller.builds import processes
from controller.builds.host_settings import (
    APT_SECRET,
    CA_SECRET,
    ENV_SECRET,
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


def write_secrets(folder: Path, settings: HostSettings, uv: Path | None) -> dict[str, Path]:
    """Files by secret name. Only this user can read them; the caller removes `folder`."""
    folder.mkdir(mode=0o700)
    texts = {ENV_SECRET: settings.environment_script(), APT_SECRET: settings.apt_config}
    secrets = {}
    for name, text in texts.items():
        if text:
            secrets[name] = folder / name
            secrets[name].write_text(text)
    if settings.ca_bundle is not None:
        secrets[CA_SECRET] = settings.ca_bundle.resolve()
    if uv is not None:
        secrets[UV_SECRET] = uv.resolve()
    return secrets


def uv_program(settings: BuilderSettings) -> Path | None:
    """The program uv: as set, beside this Python, or on PATH."""
    beside = Path(sys.executable).with_name("uv")
    found = settings.uv or (beside if beside.exists() else None) or shutil.which("uv")
    return None if found is None else Path(found)
