"""Mosquitto 2 as a child process: TLS, client certificates whose common name is the user, and an access list.

Configuration: mosquitto.conf(5). Limits from measurements: TCP_NODELAY, else TLS connects crawl; a larger window of
unacknowledged messages, so that batching consumers are not starved.
"""

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from controller.local.process import ChildProcess, StartFailed, accepts_connections, free_port
from controller.pki import CertificateAuthority
from longshore.topics import PREFIX, RULES, TopicRule

# The user name, and so the common name of the certificate, under which the controller connects.
CONTROLLER = "controller"

CONFIGURATION = """\
per_listener_settings false
listener {port} {host}
socket_domain ipv4
cafile {folder}/ca.crt
certfile {folder}/broker.crt
keyfile {folder}/broker.key
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file {folder}/acl
persistence true
persistence_location {folder}/data/
autosave_interval 60
autosave_on_changes false
set_tcp_nodelay true
max_inflight_messages 1000
max_queued_messages 100000
message_size_limit 1048576
log_dest stderr
log_type error
log_type warning
log_type notice
"""


def access_list() -> str:
    """The broker's access list: the controller reaches every device's topics, a device its own, in its direction."""
    lines = [f"user {CONTROLLER}", f"topic readwrite {PREFIX}/#", ""]
    lines += [f"pattern {_device_access(rule)} {PREFIX}/%u/{topic}" for topic, rule in RULES.items()]
    return "\n".join(lines) + "\n"


def _device_access(rule: TopicRule) -> str:
    return "write" if rule.publisher == "device" else "read"


class LocalBroker:
    """A broker on this machine. `async with LocalBroker(folder, ca) as broker: broker.address`.

    Started again on the same folder it has its retained messages again (those of the last save; a killed broker
    loses what came after it, and the controller and the agents say it anew).
    """

    def __init__(
        self, folder: Path, ca: CertificateAuthority, host: str = "127.0.0.1", port: int = 0, names: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        self._ca = ca
        self.host = host
        self.port = port or free_port(host)
        self._names = [host, "localhost", *names]
        self._process: ChildProcess | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    async def start(self) -> None:
        """Afterwards it answers. Raises StartFailed."""
        self._configure()
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        if not Path(program).exists():
            raise StartFailed("mosquitto is not installed; install the package mosquitto")
        configuration = str(self._folder / "mosquitto.conf")
        self._process = ChildProcess([program, "-c", configuration], self._folder / "broker.log")
        await self._process.start(lambda: accepts_connections(self.host, self.port))

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop()

    async def kill(self) -> None:
        if self._process is not None:
            await self._process.kill()

    async def __aenter__(self) -> "LocalBroker":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.stop())

    def _configure(self) -> None:
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        # Started as root, the broker drops to this user before it opens its files.
        owner = _broker_user()
        (self._folder / "ca.crt").write_text(self._ca.certificate_pem)
        if not (self._folder / "broker.crt").exists():
            self._ca.issue_server(self._names).write(self._folder, "broker")
        (self._folder / "acl").write_text(access_list())
        (self._folder / "acl").chmod(0o600)
        text = CONFIGURATION.format(folder=self._folder, host=self.host, port=self.port)
        (self._folder / "mosquitto.conf").write_text(text + (f"user {owner}\n" if owner else ""))


def _broker_user() -> str:
    """Root where we are root: the folder is private to this installation, so that dropping to the package's user
    would only lock the broker out of its own files."""
    return "root" if os.geteuid() == 0 else ""
