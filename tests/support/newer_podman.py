"""Podman's API as another version or machine answers: a proxy before the real one that changes what it says."""

import contextlib
import http.client
import json
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

INSPECT = re.compile(r"/containers/[^/]+/json(\?|$)")
LIST = re.compile(r"/containers/json(\?|$)")
INFO = re.compile(r"/info(\?|$)")
# Changes the answer in place.
Change = Callable[[dict[str, Any]], None]


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("podman")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, behind: Path, change: Change, asked: re.Pattern[str]) -> None:
        super().__init__(str(path), _Handler)
        self.behind = behind
        self.change = change
        self.asked = asked


class _Handler(BaseHTTPRequestHandler):
    """Hands each request on, and its answer back in one piece."""

    server: _Server

    def _hand_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        connection = _Connection(self.server.behind)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = self._changed(answer.status, answer.read())
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", answer.getheader("Content-Type") or "application/json")
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    do_GET = do_POST = do_DELETE = _hand_on  # noqa: N815 - names of the base class

    def _changed(self, status: int, content: bytes) -> bytes:
        if status != 200 or not self.server.asked.search(self.path) or LIST.search(self.path):
            return content
        told = json.loads(content)
        self.server.change(told)
        return json.dumps(told).encode()

    def address_string(self) -> str:
        return "agent"

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@contextlib.contextmanager
def newer_podman(path: Path, behind: Path, change: Change, asked: re.Pattern[str] = INSPECT) -> Iterator[str]:
    """The URL of a service at `path` that asks the one at `behind`, and changes answers to what was `asked`."""
    with _Server(path, behind, change, asked) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()
            path.unlink()
