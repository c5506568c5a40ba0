"""TANGO's Project Manager, as its deployment modules see it: it asks with GET, and takes reports."""

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# The manager's own: seconds for a call, and how long an answer may be.
PATIENCE, LONGEST = 5, 50
_WORDS = {
    "/start": {"started", "error"},
    "/stop": {"finished", "error"},
    "/status_request": {"ready", "started", "building", "preparing", "running", "stopped", "failed", "completed"},
}


class ModuleError(Exception):
    """What the manager takes for an exception of a module."""


class TangoManager:
    """`reports`: what was taken, in order. `refusals`: so many reports are answered with HTTP 500 first."""

    def __init__(self) -> None:
        self.module = ""
        self.reports: list[tuple[str, str, str, str]] = []
        self.refusals = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="tango-manager")

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def ask(self, path: str, user_id: str, project_id: str) -> str:
        """As the manager does it: 5 seconds, no HTTP 404, at most 50 characters, one of the known words."""
        text = self.get(path, user_id, project_id)
        if len(text) > LONGEST or text.strip('"') not in _WORDS[path]:
            raise ModuleError(f"{path} answered {text[:100]}")
        return text.strip('"')

    def get(self, path: str, user_id: str, project_id: str) -> str:
        query = urllib.parse.urlencode({"user_id": user_id, "project_id": project_id})
        try:
            with urllib.request.urlopen(f"{self.module}{path}?{query}", timeout=PATIENCE) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            error.close()
            raise ModuleError(f"HTTP {error.code}") from None

    def reported(self, user_id: str, project_id: str) -> list[str]:
        return [report[3] for report in self.reports if report[1:3] == (user_id, project_id)]

    def __enter__(self) -> "TangoManager":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        manager = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
                code = manager._take(url.path, query)
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps({"status": code}).encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _take(self, path: str, query: dict[str, str]) -> int:
        if path != "/status_report" or set(query) != {"container_id", "user_id", "project_id", "status"}:
            return 404
        if self.refusals:
            self.refusals -= 1
            return 500
        self.reports.append((query["container_id"], query["user_id"], query["project_id"], query["status"]))
        return 200
