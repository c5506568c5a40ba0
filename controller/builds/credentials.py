"""The registry's certificate and the credentials as files for one Podman command."""

import base64
import json
import shutil
from pathlib import Path

from controller.builds.cancelling import in_thread
from controller.builds.model import RegistryAccess
from controller.files import write_durably


class RegistryFiles:
    """Files below `folder`, which only this user reads and which the caller removes with the folder."""

    def __init__(self, folder: Path, access: RegistryAccess) -> None:
        self._folder = folder
        self._access = access

    async def options(self) -> tuple[str, ...]:
        """Options of `podman push` and `podman pull`, with credentials that are fresh now."""
        return await in_thread(self._write)

    def _write(self) -> tuple[str, ...]:
        user, password = self._access.credentials()
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        auth_file = self._folder / "auth.json"
        write_durably(auth_file, json.dumps({"auths": {self._access.address: {"auth": token}}}).encode())
        options: tuple[str, ...] = ("--authfile", str(auth_file))
        if self._access.ca_file is not None:
            certificates = self._folder / "certificates"
            certificates.mkdir(exist_ok=True)
            shutil.copyfile(self._access.ca_file, certificates / "ca.crt")
            options += ("--cert-dir", str(certificates))
        return options
