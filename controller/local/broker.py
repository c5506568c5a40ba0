"""Mosquitto 2 as a child process: TLS, client certificates whose common name is the user, and an access list.

The user is the client id too, whatever a client says: else a device could take the session of another one, or of the
controller, which the broker then cuts off. Configuration: mosquitto.conf(5). Limits from measurements: TCP_NODELAY,
else TLS connects crawl; a larger window of unacknowledged messages, so that batching consumers are not starved.
"""

import os
import shutil
from pathlib import Path

from controller.local.process import ChildProcess, StartFailed
from controller.local.server import LocalServer
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
use_username_as_clientid true
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


class LocalBroker(LocalServer):
    """A broker on this machine. `async with LocalBroker(folder, ca) as broker: broker.address`.

    Started again on the same folder it has its retained messages again (those of the last save; a killed broker
    loses what came after it, and the controller and the agents say it anew).
    """

    def _configured(self) -> ChildProcess:
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        if not Path(program).exists():
            raise StartFailed("mosquitto is not installed; install the package mosquitto")
        (self._folder / "data").mkdir(exist_ok=True)
        self._written("ca.crt", self._ca.certificate_pem)
        self._certified("broker")
        self._written("acl", access_list())
        owner = _broker_user()
        text = CONFIGURATION.format(folder=self._folder, host=self._bound, port=self._bound_port)
        configuration = self._written("mosquitto.conf", text + (f"user {owner}\n" if owner else ""))
        return ChildProcess([program, "-c", str(configuration)], self._folder / "broker.log")


def _broker_user() -> str:
    """Root where we are root: the folder is private to this installation, so that dropping to the package's user
    would only lock the broker out of its own files."""
    return "root" if os.geteuid() == 0 else ""
