"""An installation made and served by the `longshore-controller` command, as an operator does it."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from controller.local.process import free_port
from longshore.client import Client
from tests.support.waiting import eventually

COMMAND = Path(sys.executable).with_name("longshore-controller")
HOST = "localhost"
# Of this machine too, and not what the name above means.
OTHER_ADDRESS = "127.0.0.2"


@dataclass
class Serving:
    """`serve` in a process of its own."""

    process: subprocess.Popen[bytes]
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text()

    def children(self) -> dict[str, int]:
        """Process ids of what runs beside it, by the program's name."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(rest.split()[1]) == self.process.pid:
                found[name] = int(stat.parent.name)
        return found

    def end(self, number: signal.Signals) -> int:
        """Its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


@dataclass
class Installation:
    """`init` was not called yet. The ports are free ones, in the order of `init`'s options."""

    folder: Path
    ports: list[int] = field(default_factory=lambda: [free_port() for _ in range(5)])

    @property
    def broker(self) -> int:
        return self.ports[3]

    @property
    def registry(self) -> int:
        return self.ports[4]

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        argv = [str(COMMAND), *arguments, "--data-dir", str(self.folder)]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)

    def init(self) -> "subprocess.CompletedProcess[str]":
        public, agent, web, broker, registry = map(str, self.ports)
        return self.command(
            "init", "--host", HOST, "--public-port", public, "--agent-port", agent, "--web-port", web,
            "--broker", f"{HOST}:{broker}", "--registry", f"{HOST}:{registry}",
        )  # fmt: skip

    @contextmanager
    def serving(self) -> Iterator[Serving]:
        """`serve --with-broker --with-registry` until the block ends; all parts answer when it begins."""
        log_file = self.folder.with_name("serve.log")
        argv = [str(COMMAND), "serve", "--with-broker", "--with-registry", "--data-dir", str(self.folder)]
        with log_file.open("ab") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        serving = Serving(process, log_file)
        try:
            eventually(
                lambda: all(accepts(HOST, port) for port in self.ports) or process.poll() is not None,
                seconds=60, why="all parts answer",
            )  # fmt: skip
            assert process.poll() is None, serving.log()
            yield serving
        finally:
            serving.end(signal.SIGTERM)

    def client(self) -> Client:
        """The administrator's."""
        context = yaml.safe_load((self.folder / "admin-context.yml").read_text())
        return Client(context["address"], context["token"], context["ca"])

    def broker_lets_in(self, address: str = HOST) -> bool:
        """Whether the broker there knows the controller by its certificate."""
        context = self._tls()
        context.load_cert_chain(self.folder / "tls" / "controller.crt", self.folder / "tls" / "controller.key")
        with (
            socket.create_connection((address, self.broker), 5) as plain,
            context.wrap_socket(plain, server_hostname=HOST) as secure,
        ):
            # CONNECT of MQTT 5, as a client "probe" with a clean start; 0x20 begins the answer CONNACK.
            secure.sendall(bytes([0x10, 18, 0, 4]) + b"MQTT" + bytes([5, 2, 0, 60, 0, 0, 5]) + b"probe")
            return secure.recv(1) == b"\x20"

    def registry_asks_for_a_token(self, address: str = HOST) -> bool:
        """Whether the registry there answers as the distribution API says it does to strangers."""
        context = self._tls()
        context.check_hostname = False
        try:
            urllib.request.urlopen(f"https://{address}:{self.registry}/v2/", context=context, timeout=5)
        except urllib.error.HTTPError as error:
            return error.code == 401 and f":{self.ports[2]}/registry/token" in error.headers["WWW-Authenticate"]
        return False

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "ca" / "ca.crt"))


def accepts(host: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
