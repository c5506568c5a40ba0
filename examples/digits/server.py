"""Serves the digits model over HTTP.

GET  /healthz   200 once the model is loaded and has answered, 503 before that
POST /predict   an 8x8 greyscale PNG, or JSON {"pixels": [64 numbers from 0 to 255]}
                -> {"digit": 7, "probabilities": [...]}

Settings by environment: PORT (8080), MODEL (model/digits.onnx beside this file), THREADS (1).
"""

import json
import os
import signal
import socketserver
import struct
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

PIXELS = 64
MAX_REQUEST_BYTES = 64 * 1024


class BadImage(ValueError):
    """The request holds no image of the right kind."""


class Model:
    """The network in memory; `ready` is set once it has answered a first time."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self._session: Any = None
        self.ready = threading.Event()

    def load(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = self._threads
        self._session = onnxruntime.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])
        self.predict(np.zeros(PIXELS, np.float32))
        self.ready.set()

    def predict(self, pixels: np.ndarray) -> tuple[int, list[float]]:
        labels, probabilities = self._session.run(None, {"X": pixels.reshape(1, PIXELS)})
        return int(labels[0]), [round(float(p), 6) for p in probabilities[0]]


def read_image(content_type: str, body: bytes) -> np.ndarray:
    """64 brightnesses from 0 to 255, row by row. Raises BadImage."""
    pixels = _from_json(body) if content_type.startswith("application/json") else _from_png(body)
    if pixels.shape != (PIXELS,) or not np.isfinite(pixels).all():
        raise BadImage("expected 64 numbers: an image of 8 rows of 8 pixels")
    return pixels


def _from_json(body: bytes) -> np.ndarray:
    try:
        return np.asarray(json.loads(body)["pixels"], np.float32).reshape(-1)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise BadImage('expected JSON such as {"pixels": [0, 12, ...]}') from error


def _from_png(body: bytes) -> np.ndarray:
    """Reads what train.py writes: 8x8 pixels of 8-bit grey, rows unfiltered (https://www.w3.org/TR/png/)."""
    if not body.startswith(b"\x89PNG\r\n\x1a\n"):
        raise BadImage("expected a PNG image, or JSON with content type application/json")
    header, data = b"", b""
    at = 8
    while at + 12 <= len(body):
        (length,) = struct.unpack_from(">I", body, at)
        kind, content = body[at + 4 : at + 8], body[at + 8 : at + 8 + length]
        header = content if kind == b"IHDR" else header
        data += content if kind == b"IDAT" else b""
        at += length + 12
    if header != struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0):
        raise BadImage("expected a PNG of 8x8 pixels with 8 bits of grey")
    return _rows(data)


def _rows(data: bytes) -> np.ndarray:
    try:
        raw = zlib.decompressobj().decompress(data, 8 * 9)
    except zlib.error as error:
        raise BadImage("the PNG's data is damaged") from error
    if len(raw) != 8 * 9 or any(raw[row * 9] for row in range(8)):
        raise BadImage("expected a PNG whose rows are not filtered")
    return np.frombuffer(raw, np.uint8).reshape(8, 9)[:, 1:].reshape(-1).astype(np.float32)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A client that says nothing for this long is let go.
    timeout = 30
    # Head and body are two writes; the second must not wait for the first one's acknowledgement.
    disable_nagle_algorithm = True
    server: "Server"

    def do_GET(self) -> None:
        if self.path != "/healthz":
            self._answer(404, {"error": "there is GET /healthz and POST /predict"})
        elif self.server.model.ready.is_set():
            self._answer(200, {"status": "ready"})
        else:
            self._answer(503, {"status": "loading the model"})

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        if self.path != "/predict":
            self._answer(404, {"error": "there is GET /healthz and POST /predict"})
        elif not self.server.model.ready.is_set():
            self._answer(503, {"error": "loading the model"})
        else:
            self._predict(body)

    def _predict(self, body: bytes) -> None:
        try:
            pixels = read_image(self.headers.get("Content-Type", ""), body)
        except BadImage as error:
            self._answer(400, {"error": str(error)})
            return
        digit, probabilities = self.server.model.predict(pixels)
        self._answer(200, {"digit": digit, "probabilities": probabilities})

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if length.isdigit() and int(length) <= MAX_REQUEST_BYTES:
            return self.rfile.read(int(length))
        self.close_connection = True
        self._answer(413, {"error": f"expected Content-Length of at most {MAX_REQUEST_BYTES}"})
        return None

    def _answer(self, status: int, content: dict[str, object]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Requests for health are asked for all the time and say nothing."""
        if self.path != "/healthz":
            super().log_message(format, *args)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], model: Model) -> None:
        super().__init__(address, Handler)
        self.model = model

    def server_bind(self) -> None:
        """Without the look-up of the host's own name, which may take seconds where no name server answers."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]


def main() -> None:
    path = Path(os.environ.get("MODEL", Path(__file__).resolve().parent / "model" / "digits.onnx"))
    server = Server(("", int(os.environ.get("PORT", "8080"))), Model(path, int(os.environ.get("THREADS", "1"))))
    # The first process of a container gets no default action for TERM. `shutdown` waits for the serving loop,
    # which this handler interrupts, so it needs a thread of its own.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    loader = threading.Thread(target=load, args=(server.model,), daemon=True)
    loader.start()
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()


def load(model: Model) -> None:
    """A model that cannot be loaded ends the process: nothing else would ever make it ready."""
    try:
        model.load()
    except BaseException as error:  # noqa: BLE001  # whatever it was, the process ends and says it
        print(f"cannot load the model: {error}", flush=True)
        os._exit(1)
    print("model loaded", flush=True)


if __name__ == "__main__":
    main()
