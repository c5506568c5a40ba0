"""Podman as a user without rights has it, inside a simulated device: slirp4netns, and rootlessport for its ports."""

from tests.support.podman_machine import PodmanSite

USER = 4242
HOME = "/run/rootless"
RUNTIME = f"/run/user/{USER}"
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
        await site.device.run("cp", str(site.registry.ca_file), f"{folder}/ca.crt")

    async def __call__(self, *argv: str) -> str:
        """Its output, warnings left out."""
        environment = {
            "HOME": HOME,
            "USER": "rootless",
            "XDG_RUNTIME_DIR": RUNTIME,
            "CONTAINERS_CONF": f"{HOME}/containers.conf",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env", "-i"]
        user += [f"{name}={value}" for name, value in environment.items()]
        output = await self._site.device.run(*user, "podman", "--log-level=error", *argv)
        return output.strip()
