"""The process: serves at once, loads the model meanwhile, ends by TERM or with the reason why there is no model."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import grpc
from aiohttp import web

from .model import CannotLoad
from .rest import application
from .rpc import Calls, Protocol
from .served import Served
from .threads import thread_count

# Seconds for calls that are under way when the server is told to end.
GRACE = 5.0
# Inside a container; who may reach it is decided outside.
HOST = "0.0.0.0"


class CannotListen(Exception):
    """A port is taken or not ours."""


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    try:
        return asyncio.run(_serve(_parsed(arguments)))
    except (CannotLoad, CannotListen) as error:
        print(f"cannot serve: {error}", flush=True)
        return 1


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serves an ONNX model by the Open Inference Protocol v2.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--name", required=True, help="under which the model is asked for")
    parser.add_argument("--http-port", type=int, default=8080)
    parser.add_argument("--grpc-port", type=int, default=8081)
    parser.add_argument("--max-request-mib", type=int, default=256)
    return parser.parse_args(arguments)


async def _serve(options: argparse.Namespace) -> int:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    threads = thread_count(os.environ)
    served = Served(options.name, threads)
    max_bytes = options.max_request_mib * 2**20
    rest = web.AppRunner(application(served, max_bytes), access_log=None, shutdown_timeout=GRACE)
    rpc = grpc.aio.server(
        options=[("grpc.max_receive_message_length", max_bytes), ("grpc.max_send_message_length", -1)]
    )
    try:
        http_port, grpc_port = await _listen(rest, rpc, served, options)
        print(f"listening: http {http_port}, grpc {grpc_port}; loading {options.model}", flush=True)
        if await _load(served, options.model, ended):
            print(f"serving {options.name} on {served.ready_model().provider}, {threads} threads", flush=True)
            await ended.wait()
        return 0
    finally:
        await asyncio.gather(rest.cleanup(), rpc.stop(GRACE))
        served.close()


async def _listen(
    rest: web.AppRunner, rpc: grpc.aio.Server, served: Served, options: argparse.Namespace
) -> tuple[int, int]:
    protocol = Protocol()
    rpc.add_generic_rpc_handlers((protocol.handler(Calls(served, protocol)),))
    await rest.setup()
    try:
        await web.TCPSite(rest, HOST, options.http_port).start()
        grpc_port = rpc.add_insecure_port(f"{HOST}:{options.grpc_port}")
        await rpc.start()
    except (OSError, RuntimeError) as error:
        raise CannotListen(f"ports {options.http_port} and {options.grpc_port}: {error}") from error
    return rest.addresses[0][1], grpc_port


async def _load(served: Served, path: Path, ended: asyncio.Event) -> bool:
    """Whether it is loaded; not where the end came before. Raises CannotLoad."""
    loading = asyncio.ensure_future(served.load(path))
    ending = asyncio.ensure_future(ended.wait())
    await asyncio.wait([loading, ending], return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if not loading.done():
        return False
    await loading
    return True
