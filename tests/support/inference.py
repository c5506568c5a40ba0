"""A client of the Open Inference Protocol, independent of the server's code, and the server as a process."""

import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "templates" / "runtimes" / "onnx"
DIGITS = ROOT / "examples" / "digits" / "model" / "digits.onnx"


def message(name: str) -> Any:
    """The class of a message of the protocol."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"inference.{name}"))


def _pool() -> descriptor_pool.DescriptorPool:
    content = (RUNTIME / "open_inference.desc").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(content).file:
        pool.Add(file)
    return pool


@dataclass(frozen=True)
class Serving:
    """A server that runs. `said`: its output until it was ready."""

    http: str
    grpc: str
    said: str

    def get(self, path: str) -> tuple[int, Any]:
        return self._ask(urllib.request.Request(f"{self.http}{path}"))

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON; bytes where the answer is binary."""
        return self._ask(urllib.request.Request(f"{self.http}{path}", body, dict(headers or {})))

    def infer(self, **request: Any) -> tuple[int, Any]:
        return self.post("/v2/models/digits/infer", json.dumps(request).encode())

    def call(self, method: str, **request: Any) -> Any:
        """A unary call over gRPC. Raises grpc.RpcError."""
        with grpc.insecure_channel(self.grpc) as channel:
            call = channel.unary_unary(
                f"/inference.GRPCInferenceService/{method}",
                request_serializer=lambda text: text.SerializeToString(),
                response_deserializer=message(f"{method}Response").FromString,
            )
            return call(message(f"{method}Request")(**request), timeout=30)

    def _ask(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, kind, body = answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, kind, body = error.code, error.headers["Content-Type"], error.read()
        return status, json.loads(body) if kind.startswith("application/json") else body


def command(folder: Path, model: Path, *more: str) -> list[str]:
    """How an image starts the server, with its files copied into `folder`."""
    shutil.copytree(RUNTIME, folder / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    ports = ("--http-port=0", "--grpc-port=0")
    return [sys.executable, str(folder / "runtime" / "serve.py"), f"--model={model}", "--name=digits", *ports, *more]


@contextmanager
def serving(folder: Path, model: Path = DIGITS, *more: str) -> Iterator[Serving]:
    """The server with the model loaded; it ends by TERM, with status 0."""
    with subprocess.Popen(command(folder, model, *more), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            said = ""
            for line in process.stdout:
                said += line
                if line.startswith("serving"):
                    break
            ports = re.search(r"http (\d+), grpc (\d+)", said)
            assert ports, said
            yield Serving(f"http://127.0.0.1:{ports[1]}", f"127.0.0.1:{ports[2]}", said)
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
