"""A builder host: a simulated machine with a Podman service that is reached over ssh or TLS."""

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from controller.builds.tunnels import SshTunnel, TlsTunnel
from controller.pki import CertificateAuthority
from tests.support.async_waiting import until
from tests.support.devices import SimulatedDevice
from tests.support.small_disk import SmallDisk

SSH_PORT, TLS_PORT = 2222, 8443
SSHD = """
Port {port}
HostKey {folder}/host-key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
"""
STUNNEL = """
foreground = yes
pid =
[podman]
accept = 0.0.0.0:{port}
connect = {socket}
cert = {folder}/tls/host.crt
key = {folder}/tls/host.key
CAfile = {folder}/ca/ca.crt
verifyChain = yes
"""


@dataclass
class HostUnderTest:
    """The machine; `folder` has keys and certificates."""

    folder: Path
    device: SimulatedDevice

    @property
    def socket(self) -> Path:
        return self.folder / "podman.sock"

    @property
    def ssh_url(self) -> str:
        return f"ssh://root@{self.device.address}:{SSH_PORT}{self.socket}"

    def ssh(self) -> SshTunnel:
        return SshTunnel(self.ssh_url, self.folder / "key", self.folder / "known-hosts")

    def tls(self, client: str = "client") -> TlsTunnel:
        tls = self.folder / "tls"
        url = f"tls://{self.device.address}:{TLS_PORT}"
        return TlsTunnel(url, self.folder / "ca" / "ca.crt", tls / f"{client}.crt", tls / f"{client}.key")

    async def start(self) -> None:
        """Starts the services in the machine, which is switched on."""
        await self.device.run("mkdir", "-p", "/run/sshd")
        copies = self.device.folder / "copies"
        environment = {**os.environ, "TMPDIR": str(copies)}
        self.socket.unlink(missing_ok=True)
        log = self.folder / "services.log"
        self.device.popen(["podman", "system", "service", "-t", "0", f"unix://{self.socket}"], environment, log)
        self.device.popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "sshd_config")], log=log)
        self.device.popen(["stunnel4", str(self.folder / "stunnel.conf")], log=log)
        await until(self._answers, seconds=30, why="the services of a builder host answer")

    async def podman(self, *args: str) -> str:
        return await self.device.run("podman", *args)

    async def leftovers(self) -> list[str]:
        """Containers, volumes, processes and files that are of no use once no build runs."""
        containers = (await self.podman("ps", "-a", "--external", "-q")).split()
        volumes = (await self.podman("volume", "ls", "-q")).split()
        listed = (await self.device.run("ps", "-eo", "args", "--no-headers")).splitlines()
        processes = [
            line
            for line in listed
            if not any(word in line for word in ("catatonit", "sshd", "stunnel", "ps -eo", "podman system service"))
        ]
        files = [path.name for path in (self.device.folder / "copies").iterdir() if path.name != "buildah-cache"]
        return [*containers, *volumes, *processes, *files]

    def empty_temporary(self) -> None:
        """As machines do when they start."""
        for entry in (self.device.folder / "copies").iterdir():
            if entry.name != "buildah-cache":
                shutil.rmtree(entry)

    def log(self) -> str:
        """The end of what the services wrote."""
        return (self.folder / "services.log").read_text()[-3000:]

    def _answers(self) -> bool:
        # The slowest first: sshd refuses others while too many ask and say nothing.
        if not self.socket.exists():
            return False
        try:
            for port in (SSH_PORT, TLS_PORT):
                socket.create_connection((self.device.address, port), 1).close()
        except OSError:
            return False
        return True


@asynccontextmanager
async def running_host(folder: Path, disk: SmallDisk | None = None) -> AsyncIterator[HostUnderTest]:
    """A host with its services, its images on `disk` if one is given; nothing of it is left afterwards."""
    folder.mkdir(parents=True)
    if disk is not None:
        (folder / "machine").mkdir()
        (folder / "machine" / "lib").symlink_to(disk.path)
    async with SimulatedDevice(folder / "machine") as device:
        _make_keys(folder, device.address)
        host = HostUnderTest(folder, device)
        await host.start()
        yield host


def trust_registry(host: HostUnderTest, address: str, ca_file: Path) -> None:
    """Puts the registry's CA where Podman on the host looks for it."""
    certificates = host.device.folder / "etc" / "certs.d" / address
    certificates.mkdir(parents=True, exist_ok=True)
    (certificates / "ca.crt").write_bytes(ca_file.read_bytes())


def _make_keys(folder: Path, address: str) -> None:
    for name in ("key", "host-key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    public = (folder / "host-key.pub").read_text()
    (folder / "known-hosts").write_text(f"[{address}]:{SSH_PORT} {public}")
    (folder / "sshd_config").write_text(SSHD.format(port=SSH_PORT, folder=folder))
    ca = CertificateAuthority.create(folder / "ca")
    ca.issue_server([address]).write(folder / "tls", "host")
    ca.issue_client("controller").write(folder / "tls", "client")
    CertificateAuthority.create(folder / "other-ca").issue_client("controller").write(folder / "tls", "stranger")
    (folder / "stunnel.conf").write_text(STUNNEL.format(port=TLS_PORT, socket=folder / "podman.sock", folder=folder))
