"""Tensors of the protocol and arrays of numpy, in all three forms: JSON, typed fields of gRPC, raw bytes."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md#tensor-data-types
DTYPES: dict[str, Any] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
# As onnxruntime names the element types.
ONNX_TYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
# Kinds of arrays, as numpy has them, whose elements a datatype takes from JSON.
_KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "iuf", "O": "US"}
# Of typed elements in gRPC; FP16 has none.
FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class BadTensor(ValueError):
    """A request that cannot be served as it is; the text names the tensor and what is expected."""


@dataclass(frozen=True)
class Tensor:
    """A named array and its datatype in the protocol; elements of BYTES are `bytes` or `str`."""

    name: str
    datatype: str
    array: Array


def from_elements(name: str, datatype: str, shape: Sequence[int], elements: Any) -> Tensor:
    """From elements row by row, or nested as the shape is. Raises BadTensor."""
    dtype = _dtype(name, datatype)
    try:
        given = _given(elements, dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadTensor(f"the data of '{name}' is no array of {datatype}") from error
    if given.size and given.dtype.kind not in _KINDS[dtype.kind]:
        raise BadTensor(f"the data of '{name}' is not {datatype}")
    if given.size and dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        if int(given.min()) < bounds.min or int(given.max()) > bounds.max:
            raise BadTensor(f"the data of '{name}' does not fit into {datatype}")
    if given.dtype.kind == "S":
        given = np.array(elements, dtype=object)
    try:
        with np.errstate(over="raise"):
            return Tensor(name, datatype, _shaped(name, shape, given.astype(dtype, copy=False)))
    except FloatingPointError as error:
        raise BadTensor(f"the data of '{name}' does not fit into {datatype}") from error


def _given(elements: Any, dtype: Any) -> Array:
    """The elements as they are. numpy makes floats of whole numbers of which some have 64 bits, and objects of those
    with more: these are read again, exactly."""
    if not len(elements):
        return np.asarray(elements, dtype)
    given = np.asarray(elements)
    if given.dtype.kind in _KINDS[dtype.kind] or given.dtype.kind not in "fO" or dtype.kind not in "iuf":
        return given
    exact = np.asarray(elements, dtype=object)
    if not all(type(element) is int for element in exact.reshape(-1)):
        return given
    if dtype.kind == "f":
        return exact.astype(np.float64)
    return exact.astype(np.uint64) if exact.min() >= 0 and exact.max() < 2**64 else given


def from_bytes(name: str, datatype: str, shape: Sequence[int], raw: bytes) -> Tensor:
    """From little-endian elements; an element of BYTES has its length in four bytes before it. Raises BadTensor."""
    dtype = _dtype(name, datatype)
    if datatype == "BYTES":
        return Tensor(name, datatype, _shaped(name, shape, np.array(_split(name, raw), dtype=object)))
    if len(raw) % dtype.itemsize:
        raise BadTensor(f"the data of '{name}' has {len(raw)} bytes, no multiple of {dtype.itemsize}")
    array = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype, copy=False)
    return Tensor(name, datatype, _shaped(name, shape, array))


def to_bytes(tensor: Tensor) -> bytes:
    """The form that `from_bytes` reads."""
    if tensor.datatype != "BYTES":
        return tensor.array.astype(tensor.array.dtype.newbyteorder("<"), copy=False).tobytes()
    return b"".join(struct.pack("<I", len(text)) + text for text in map(as_bytes, tensor.array.reshape(-1)))


def to_json(tensor: Tensor) -> list[Any]:
    """Elements row by row, as JSON has them: text for BYTES, null for what is no finite number."""
    flat = tensor.array.reshape(-1)
    if tensor.datatype == "BYTES":
        return [text if isinstance(text, str) else as_bytes(text).decode("utf-8", "replace") for text in flat]
    elements: list[Any] = flat.tolist()
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        return [element if math.isfinite(element) else None for element in elements]
    return elements


def as_bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()


def _dtype(name: str, datatype: str) -> Any:
    if datatype not in DTYPES:
        raise BadTensor(f"the datatype of '{name}' is '{datatype}'; expected one of {', '.join(DTYPES)}")
    return DTYPES[datatype]


def _shaped(name: str, shape: Sequence[int], array: Array) -> Array:
    wanted = math.prod(shape)
    if wanted != array.size:
        raise BadTensor(f"'{name}' has {array.size} elements; its shape {list(shape)} means {wanted}")
    return array.reshape(tuple(shape))


def _split(name: str, raw: bytes) -> list[bytes]:
    elements = []
    at = 0
    while at < len(raw):
        if at + 4 > len(raw) or at + 4 + struct.unpack_from("<I", raw, at)[0] > len(raw):
            raise BadTensor(f"the data of '{name}' ends within an element")
        (length,) = struct.unpack_from("<I", raw, at)
        elements.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return elements
