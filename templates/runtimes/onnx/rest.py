"""The protocol over HTTP and JSON, with tensors in binary where a client wants that.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from .model import PLATFORM, VERSION, CannotRun, Model, Signature
from .served import EXTENSIONS, SERVER, SERVER_VERSION, NotFound, NotReady, Served
from .tensors import BadTensor, Tensor, from_bytes, from_elements, to_bytes, to_json

# Length of the JSON that stands before the binary tensors.
HEADER_LENGTH = "Inference-Header-Content-Length"
_STATUS: dict[type[Exception], int] = {BadTensor: 400, NotFound: 404, NotReady: 503, CannotRun: 500}


def application(served: Served, max_bytes: int) -> web.Application:
    """All paths of the protocol for the one model."""
    app = web.Application(client_max_size=max_bytes, middlewares=[_errors])
    calls = _Calls(served)
    app.router.add_get("/v2", calls.server)
    app.router.add_get("/v2/health/live", calls.live)
    app.router.add_get("/v2/health/ready", calls.ready)
    for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        app.router.add_get(model, calls.metadata)
        app.router.add_get(f"{model}/ready", calls.model_ready)
        app.router.add_post(f"{model}/infer", calls.infer)
    return app


class _Calls:
    def __init__(self, served: Served) -> None:
        self._served = served

    async def server(self, _: web.Request) -> web.Response:
        return web.json_response({"name": SERVER, "version": SERVER_VERSION, "extensions": list(EXTENSIONS)})

    async def live(self, _: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def ready(self, _: web.Request) -> web.Response:
        ready = self._served.model is not None
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    async def model_ready(self, request: web.Request) -> web.Response:
        self._check_name(request)
        model = self._served.model
        answer = {"name": self._served.name, "ready": model is not None}
        return web.json_response(answer, status=503 if model is None else 200)

    async def metadata(self, request: web.Request) -> web.Response:
        self._check_name(request)
        model = self._served.ready_model()
        inputs, outputs = ([_described(node) for node in nodes] for nodes in (model.inputs, model.outputs))
        answer = {"name": self._served.name, "versions": [VERSION], "platform": PLATFORM}
        return web.json_response({**answer, "inputs": inputs, "outputs": outputs})

    async def infer(self, request: web.Request) -> web.Response:
        self._check_name(request)
        length = request.headers.get(HEADER_LENGTH, "")
        body = await request.read()
        if length and not (length.isdigit() and int(length) <= len(body)):
            raise BadTensor(f"{HEADER_LENGTH} is '{length}', and the body has {len(body)} bytes")
        header_size = int(length) if length else len(body)
        return await self._served.call(lambda model: _infer(model, self._served.name, body, header_size))

    def _check_name(self, request: web.Request) -> None:
        self._served.check_name(request.match_info["name"], request.match_info.get("version", ""))


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Everything that is refused says why in JSON, as the protocol wants it."""
    try:
        return await handler(request)
    except tuple(_STATUS) as error:
        return web.json_response({"error": str(error)}, status=_STATUS[type(error)])
    except web.HTTPRequestEntityTooLarge as error:
        return web.json_response({"error": error.text}, status=413)
    except web.HTTPException as error:
        return web.json_response({"error": f"{request.method} {request.path}: {error.reason}"}, status=error.status)


def _described(node: Signature) -> dict[str, Any]:
    return {"name": node.name, "datatype": node.datatype, "shape": list(node.shape)}


def _infer(model: Model, name: str, body: bytes, header_size: int) -> web.Response:
    request = _json_object(body[:header_size])
    inputs = _inputs(request, body[header_size:])
    wanted = [_text(output, "name") for output in _objects(request, "outputs", required=False)]
    outputs = model.infer(inputs, wanted)
    parts: list[bytes] = []
    described = [_output(tensor, request, parts) for tensor in outputs]
    answer: dict[str, Any] = {"model_name": name, "model_version": VERSION, "outputs": described}
    if isinstance(request.get("id"), str):
        answer["id"] = request["id"]
    header = json.dumps(answer).encode()
    if not parts:
        return web.Response(body=header, content_type="application/json")
    headers = {HEADER_LENGTH: str(len(header))}
    return web.Response(body=header + b"".join(parts), content_type="application/octet-stream", headers=headers)


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadTensor(f"the body is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadTensor('the body is no JSON object; expected {"inputs": [...]}')
    return value


def _inputs(request: dict[str, Any], binary: bytes) -> list[Tensor]:
    tensors = []
    at = 0
    for entry in _objects(request, "inputs", required=True):
        name, datatype, shape = _text(entry, "name"), _text(entry, "datatype"), _shape(entry)
        size = _parameters(entry).get("binary_data_size")
        if size is None:
            data = entry.get("data")
            if not isinstance(data, list):
                raise BadTensor(f"the input '{name}' has no data; expected a list")
            tensors.append(from_elements(name, datatype, shape, data))
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary) - at:
            raise BadTensor(f"binary_data_size of '{name}' is {size}, and {len(binary) - at} bytes are left")
        tensors.append(from_bytes(name, datatype, shape, binary[at : at + size]))
        at += size
    if at != len(binary):
        raise BadTensor(f"{len(binary) - at} bytes after the JSON belong to no input")
    return tensors


def _output(tensor: Tensor, request: dict[str, Any], parts: list[bytes]) -> dict[str, Any]:
    """The description of an output; its data goes to `parts` where the client wants it in binary."""
    described = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.array.shape)}
    asked = [entry for entry in request.get("outputs") or [] if entry["name"] == tensor.name]
    binary = _parameters(request).get("binary_data_output", False)
    if asked:
        binary = _parameters(asked[0]).get("binary_data", binary)
    if binary is not True:
        return {**described, "data": to_json(tensor)}
    parts.append(to_bytes(tensor))
    return {**described, "parameters": {"binary_data_size": len(parts[-1])}}


def _objects(request: dict[str, Any], key: str, *, required: bool) -> list[dict[str, Any]]:
    value = request.get(key)
    if value is None and not required:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise BadTensor(f"expected '{key}' to be a list of objects")
    return value


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise BadTensor(f"expected a text as '{key}' of each tensor")
    return value


def _shape(entry: dict[str, Any]) -> list[int]:
    value = entry.get("shape")
    if not isinstance(value, list) or not all(type(size) is int and 0 <= size < 2**31 for size in value):
        raise BadTensor(f"expected the shape of '{entry.get('name')}' to be a list of whole numbers")
    return value


def _parameters(entry: dict[str, Any]) -> dict[str, Any]:
    value = entry.get("parameters")
    return value if isinstance(value, dict) else {}
