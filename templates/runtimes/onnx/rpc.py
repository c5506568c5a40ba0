"""The protocol over gRPC.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from .model import PLATFORM, VERSION, CannotRun, Model
from .served import EXTENSIONS, SERVER, SERVER_VERSION, NotFound, NotReady, Served
from .tensors import FIELDS, BadTensor, Tensor, as_bytes, from_bytes, from_elements, to_bytes

SERVICE = "GRPCInferenceService"
_CODES: dict[type[Exception], grpc.StatusCode] = {
    BadTensor: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    NotReady: grpc.StatusCode.UNAVAILABLE,
    CannotRun: grpc.StatusCode.INTERNAL,
}


class Protocol:
    """The messages and methods in open_inference.desc."""

    def __init__(self) -> None:
        content = Path(__file__).with_name("open_inference.desc").read_bytes()
        (self._file,) = descriptor_pb2.FileDescriptorSet.FromString(content).file
        # A pool of its own: a user's packages may bring the same messages.
        self._pool = descriptor_pool.DescriptorPool()
        self._pool.Add(self._file)
        self._service = self._pool.FindServiceByName(f"{self._file.package}.{SERVICE}")
        self.methods = {method.name: method for method in self._service.methods}

    def message(self, name: str) -> Any:
        """The class of a message."""
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(f"{self._file.package}.{name}"))

    def handler(self, calls: object) -> grpc.GenericRpcHandler[Any, Any]:
        """Serves each method by the attribute of its name."""
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                _answering(getattr(calls, name)),
                request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
                response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
            )
            for name, method in self.methods.items()
        }
        return grpc.method_handlers_generic_handler(self._service.full_name, handlers)


class Calls:
    """The methods of the service."""

    def __init__(self, served: Served, protocol: Protocol) -> None:
        self._served = served
        self._message = protocol.message

    async def ServerLive(self, _: Any) -> Any:
        return self._message("ServerLiveResponse")(live=True)

    async def ServerReady(self, _: Any) -> Any:
        return self._message("ServerReadyResponse")(ready=self._served.model is not None)

    async def ModelReady(self, request: Any) -> Any:
        self._served.check_name(request.name, request.version)
        return self._message("ModelReadyResponse")(ready=self._served.model is not None)

    async def ServerMetadata(self, _: Any) -> Any:
        answer = self._message("ServerMetadataResponse")
        return answer(name=SERVER, version=SERVER_VERSION, extensions=EXTENSIONS)

    async def ModelMetadata(self, request: Any) -> Any:
        self._served.check_name(request.name, request.version)
        model = self._served.ready_model()
        answer = self._message("ModelMetadataResponse")(name=self._served.name, versions=[VERSION], platform=PLATFORM)
        for nodes, described in ((model.inputs, answer.inputs), (model.outputs, answer.outputs)):
            for node in nodes:
                described.add(name=node.name, datatype=node.datatype, shape=node.shape)
        return answer

    async def ModelInfer(self, request: Any) -> Any:
        self._served.check_name(request.model_name, request.model_version)
        return await self._served.call(lambda model: self._infer(model, request))

    def _infer(self, model: Model, request: Any) -> Any:
        outputs = model.infer(_inputs(request), [output.name for output in request.outputs])
        answer = self._message("ModelInferResponse")(model_name=self._served.name, model_version=VERSION, id=request.id)
        raw = bool(request.raw_input_contents) or any(tensor.datatype not in FIELDS for tensor in outputs)
        for tensor in outputs:
            described = answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
            if raw:
                answer.raw_output_contents.append(to_bytes(tensor))
            else:
                getattr(described.contents, FIELDS[tensor.datatype]).extend(_elements(tensor))
        return answer


def _inputs(request: Any) -> list[Tensor]:
    raw: Sequence[bytes] = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadTensor(f"there are {len(request.inputs)} inputs, and {len(raw)} raw_input_contents")
    return [_input(tensor, raw[index] if raw else None) for index, tensor in enumerate(request.inputs)]


def _input(tensor: Any, raw: bytes | None) -> Tensor:
    if any(size < 0 for size in tensor.shape):
        raise BadTensor(f"the shape of '{tensor.name}' has a negative size")
    if raw is not None:
        return from_bytes(tensor.name, tensor.datatype, tensor.shape, raw)
    field = FIELDS.get(tensor.datatype)
    if field is None:
        raise BadTensor(f"the input '{tensor.name}' is '{tensor.datatype}', which comes in raw_input_contents only")
    return from_elements(tensor.name, tensor.datatype, tensor.shape, list(getattr(tensor.contents, field)))


def _elements(tensor: Tensor) -> list[Any]:
    flat = tensor.array.reshape(-1)
    return [as_bytes(text) for text in flat] if tensor.datatype == "BYTES" else list(flat.tolist())


def _answering(call: Callable[[Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def answer(request: Any, context: Any) -> Any:
        try:
            return await call(request)
        except tuple(_CODES) as error:
            return await context.abort(_CODES[type(error)], str(error))

    return answer
