"""The bare-metal agent of a user without rights, on a simulated device."""

import sys
from pathlib import Path

from tests.support.remote_backend import RemoteBackend, VirtualenvOptions
from tests.support.virtualenv_machine import VirtualenvMachine, VirtualenvSite

USER = 4242
HOME = "/run/ordinary"
RUNTIME = f"/run/user/{USER}"
# $1 is the authority of the registry, which nobody else may read where it is.
SETUP = f"""
set -e
mkdir -p {HOME} {RUNTIME}
cp "$1" {HOME}/authority.crt
chmod 644 {HOME}/authority.crt
chown -R {USER}:{USER} {HOME} {RUNTIME}
"""
# $1 is a folder to which others may not find their way, $2 the one on it that they may not enter.
WAY = """
set -e
mkdir -p /run/way
mount --bind "$1" /run/way
mount -t tmpfs -o mode=755 none "$2"
mkdir -p "$1"
mount --bind /run/way "$1"
"""


class UserMachine(VirtualenvMachine):
    """Whose agent is an ordinary user's; `prepare` comes first, once for a site."""

    @staticmethod
    async def prepare(site: VirtualenvSite) -> None:
        await site.device.run("sh", "-c", SETUP, "setup", str(site.shop.registry.ca_file))
        python = Path(sys.base_prefix)
        closed = [folder for folder in (*python.parents, python) if not folder.stat().st_mode & 0o001]
        if closed:
            await site.device.run("sh", "-c", WAY, "way", str(python), str(min(closed)))

    async def open(self) -> None:
        user, password = self.site.shop.registry.device_credentials(self.owner)
        options = VirtualenvOptions(
            self.owner, Path(HOME, self.owner), user, password, Path(HOME, "authority.crt"),
            {"HOME": HOME, "XDG_RUNTIME_DIR": RUNTIME},
        )  # fmt: skip
        drop = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all")
        self._agent = await RemoteBackend.launch(lambda argv: self.site.device.command([*drop, *argv]), options)
