"""Podman as a user without rights has it, inside a simulated device: a network by slirp4netns or pasta, and
rootlessport for its ports."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.device_root import DeviceRoot, debian_with_podman
from tests.support.podman_machine import PodmanMachine, PodmanSite, podman_site
from tests.support.remote_backend import PodmanOptions

USER = 4242
HOME = "/run/rootless"
RUNTIME = f"/run/user/{USER}"
# By which the user verifies the registry.
AUTHORITY = Path(HOME, "registry.crt")
# What a machine with rootless Podman has; each of these files and folders is the device's own. $1 is its folder.
SETUP = f"""
set -e
cp /etc/passwd "$1/passwd"
echo "rootless:x:{USER}:{USER}::{HOME}:/bin/sh" >> "$1/passwd"
echo "rootless:200000:65536" > "$1/subids"
touch /etc/subuid /etc/subgid
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/subids" /etc/subuid
mount --bind "$1/subids" /etc/subgid
mknod /run/tun c 10 200
chmod 666 /run/tun
mount --bind /run/tun /dev/net/tun
mkdir -p "$1/home" {HOME} {RUNTIME}
mount --bind "$1/home" {HOME}
mkdir -p {HOME}/.config/containers
printf '[storage]\\ndriver = "overlay"\\n' > {HOME}/.config/containers/storage.conf
sed '/image_copy_tmp_dir/d' /etc/containers/containers.conf > {HOME}/containers.conf
chown -R {USER}:{USER} {HOME} {RUNTIME}
"""
# Of what a user's processes have, and those of this machine's administrator have not.
ENVIRONMENT = {
    "HOME": HOME,
    "USER": "rootless",
    "XDG_RUNTIME_DIR": RUNTIME,
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
}


def as_user(argv: Sequence[str], more: dict[str, str]) -> list[str]:
    """The command line that runs `argv` as the user, with nothing in its environment but the user's and `more`."""
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env", "-i"]
    return [*user, *(f"{name}={value}" for name, value in {**ENVIRONMENT, **more}.items()), *argv]


class RootlessPodman:
    """`podman` of the user; `prepare` comes first. Its storage dies with the device."""

    def __init__(self, site: PodmanSite) -> None:
        self._site = site

    async def prepare(self) -> None:
        site = self._site
        # Its home lies below; nobody else's files do.
        site.folder.chmod(0o755)
        await site.device.run("bash", "-c", SETUP, "setup", str(site.device.folder))
        folder = f"/etc/containers/certs.d/{site.registry.address}"
        await site.device.run("mkdir", "-p", folder)
        for place in (f"{folder}/ca.crt", str(AUTHORITY)):
            await site.device.run("install", "-m", "644", str(site.registry.ca_file), place)

    async def __call__(self, *argv: str) -> str:
        """Its output, warnings left out."""
        command = as_user(["podman", "--log-level=error", *argv], {"CONTAINERS_CONF": f"{HOME}/containers.conf"})
        return (await self._site.device.run(*command)).strip()


@dataclass
class RootlessSite(PodmanSite):
    """Whose agents are the user's. `RootlessPodman.prepare` comes first."""

    def command(self, argv: Sequence[str]) -> list[str]:
        return self.device.command(as_user([self.device.python, *argv[1:]], self.device.python_environment))

    def options(self, owner: str) -> PodmanOptions:
        return replace(super().options(owner), state_dir=Path(HOME, owner), registry_ca=AUTHORITY)


@asynccontextmanager
async def rootless_site(folder: Path, suite: str) -> AsyncIterator[RootlessSite]:
    """As `podman_site`, on a device with this Debian and a user that may have containers."""
    async with podman_site(folder, root=DeviceRoot(await debian_with_podman(suite))) as made:
        rootless = RootlessSite(**vars(made))
        await RootlessPodman(rootless).prepare()
        yield rootless


class RootlessMachine(PodmanMachine):
    """One owner's part of a `RootlessSite`."""

    async def podman(self, *argv: str) -> str:
        return await RootlessPodman(self.site)(*argv)
