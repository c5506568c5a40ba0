"""Podman's API service: started when it is needed, gone when it is idle.

A device that only keeps its instances running has no service process. Killing the service disturbs nothing that runs.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from edge_agent.podman.config import host_facts, render
from edge_agent.runtime.backend import BackendUnavailable

IDLE_SECONDS = 10
START_DEADLINE = 20.0
# It waits for requests that still run, such as a pull that nobody wants any more.
STOP_SECONDS = 2.0
# sun_path of a Unix socket holds 108 bytes.
LONGEST_SOCKET_PATH = 100

log = structlog.get_logger()


class PodmanService:
    """The service of one agent, with its settings and scratch space below `folder`. Its calls block; for threads."""

    def __init__(self, folder: Path, mend: Callable[[str], bool] = lambda said: False) -> None:
        """`mend` is given what a service said that did not start: whether another one may."""
        self.folder = folder
        self._mend = mend
        self.copy_folder = folder / "tmp"
        self.home = folder / "home"
        self.socket = _socket_path(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def ensure(self) -> None:
        """Afterwards the service answers. Raises BackendUnavailable with what it said where it does not."""
        with self._lock:
            if not self._answers():
                self._start()

    def close(self) -> None:
        """Ends the service, if this process started it; instances run on."""
        with self._lock:
            if self._process is not None:
                self._process.terminate()
                try:
                    self._process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    self._reap()
                self._process = None

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def _start(self) -> None:
        try:
            self._start_once()
        except BackendUnavailable:
            if self._process is None or not self._mend(self._said()):
                raise
            self._start_once()

    def _start_once(self) -> None:
        program = shutil.which("podman")
        if program is None:
            raise BackendUnavailable("PodmanNotInstalled", "podman is not installed; install the package podman")
        self._reap()
        self._write_settings()
        argv = [program, "system", "service", f"--time={IDLE_SECONDS}", self.url]
        with (self.folder / "podman.log").open("wb") as output:
            self._process = subprocess.Popen(
                argv, env=self._environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, cwd=self.folder,
            )  # fmt: skip
        # So that a service that went idle does not stay in the process table.
        threading.Thread(target=self._process.wait, name="podman-service", daemon=True).start()
        self._await_answer(self._process)

    def _reap(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _write_settings(self) -> None:
        # What an interrupted pull has left; no pull of ours runs while there is no service.
        shutil.rmtree(self.copy_folder, ignore_errors=True)
        for folder in (self.copy_folder, self.home, self.socket.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        (self.folder / "containers.conf").write_text(render(host_facts(), self.copy_folder))

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ, CONTAINERS_CONF=str(self.folder / "containers.conf"))
        environment["TMPDIR"] = str(self.copy_folder)
        if os.getuid() == 0:
            # Where certs.d is looked up besides /etc; without root the home also says where the store is.
            environment["HOME"] = str(self.home)
        return environment

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_DEADLINE
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise BackendUnavailable("PodmanUnavailable", f"podman's service does not start: {self._last_words()}")
            time.sleep(0.005)
        log.info("podman_service_started", pid=process.pid)

    def _said(self) -> str:
        return (self.folder / "podman.log").read_text(errors="replace")

    def _last_words(self) -> str:
        lines = self._said().strip().splitlines()
        return lines[-1][-500:] if lines else "it says nothing"


def _socket_path(folder: Path) -> Path:
    path = folder / "podman.sock"
    if len(str(path)) <= LONGEST_SOCKET_PATH:
        return path
    runtime = Path("/run") if os.getuid() == 0 else Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}"))
    return runtime / "longshore" / f"{hashlib.sha256(bytes(folder)).hexdigest()[:16]}.sock"
