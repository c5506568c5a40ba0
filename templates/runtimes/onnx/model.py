"""One ONNX model on onnxruntime: what it takes and gives, and one call of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from .tensors import DTYPES, ONNX_TYPES, BadTensor, Tensor

PLATFORM = "onnxruntime_onnx"
VERSION = "1"


class CannotLoad(Exception):
    """The file is no model that can be served; the text says why."""


class CannotRun(Exception):
    """The model failed on an input that looks right; the text is onnxruntime's."""


@dataclass(frozen=True)
class Signature:
    """An input or output; -1 in the shape stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Model:
    """Immutable once made; calls may come from several threads."""

    def __init__(self, path: Path, threads: int) -> None:
        """Reads the file, which may take seconds. Raises CannotLoad."""
        if not path.is_file():
            raise CannotLoad(f"{path}: there is no such file")
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), _options(threads), providers=_providers())
        except Exception as error:  # onnxruntime has no base class for its errors
            raise CannotLoad(f"{path}: onnxruntime cannot load it: {error}") from error
        self.provider: str = self._session.get_providers()[0]
        self.inputs = tuple(_signature(node) for node in self._session.get_inputs())
        if strange := [node.name for node in self.inputs if not node.datatype]:
            raise CannotLoad(f"{path}: the input '{strange[0]}' is no tensor of a type that the protocol has")
        outputs = [_signature(node) for node in self._session.get_outputs()]
        self.outputs = tuple(node for node in outputs if node.datatype)
        # Such as the maps that converters from scikit-learn make unless they are told not to (zipmap).
        self.hidden = tuple(node.name for node in outputs if not node.datatype)
        if not self.outputs:
            raise CannotLoad(f"{path}: none of its outputs is a tensor; with skl2onnx, export with zipmap=False")

    def infer(self, inputs: Sequence[Tensor], wanted: Sequence[str] = ()) -> list[Tensor]:
        """The outputs of these names, or all. Raises BadTensor, CannotRun."""
        chosen = self._chosen(wanted)
        feeds = self._feeds(inputs)
        try:
            arrays = self._session.run([node.name for node in chosen], feeds)
        except Exception as error:  # onnxruntime has no base class for its errors
            if type(error).__name__ == "InvalidArgument":
                raise BadTensor(str(error)) from error
            raise CannotRun(str(error)) from error
        return [Tensor(node.name, node.datatype, np.asarray(array)) for node, array in zip(chosen, arrays, strict=True)]

    def warm_up(self) -> str:
        """Calls it once with zeros, since the first call is slow; answers what went wrong, or ""."""
        zeros = [_zeros(node) for node in self.inputs]
        try:
            self.infer(zeros)
        except (BadTensor, CannotRun) as error:
            return str(error)
        return ""

    def _chosen(self, wanted: Sequence[str]) -> list[Signature]:
        known = {node.name: node for node in self.outputs}
        for name in wanted:
            if name not in known:
                raise BadTensor(f"the model has no output '{name}'; it has {', '.join(known)}")
        return [known[name] for name in wanted] or list(self.outputs)

    def _feeds(self, inputs: Sequence[Tensor]) -> dict[str, Any]:
        known = {node.name: node for node in self.inputs}
        given = {tensor.name: tensor for tensor in inputs}
        if len(given) < len(inputs):
            raise BadTensor("an input is given twice")
        for name in given:
            if name not in known:
                raise BadTensor(f"the model has no input '{name}'; it takes {', '.join(known)}")
        for name, node in known.items():
            if name not in given:
                raise BadTensor(f"the input '{name}' is missing: {node.datatype} {list(node.shape)}")
            _check(given[name], node)
        return {name: _for_onnxruntime(tensor) for name, tensor in given.items()}


def _zeros(node: Signature) -> Tensor:
    shape = [max(1, size) for size in node.shape]
    filler: object = "" if node.datatype == "BYTES" else 0
    return Tensor(node.name, node.datatype, np.full(shape, filler, DTYPES[node.datatype]))


def _check(tensor: Tensor, node: Signature) -> None:
    if tensor.datatype != node.datatype:
        raise BadTensor(f"the input '{node.name}' is {tensor.datatype}; the model takes {node.datatype}")
    shape = tensor.array.shape
    if len(shape) != len(node.shape) or any(
        want not in (-1, size) for size, want in zip(shape, node.shape, strict=True)
    ):
        raise BadTensor(f"the input '{node.name}' has the shape {list(shape)}; the model takes {list(node.shape)}")


def _for_onnxruntime(tensor: Tensor) -> Any:
    if tensor.datatype != "BYTES":
        return tensor.array
    try:
        texts = [text if isinstance(text, str) else text.decode() for text in tensor.array.reshape(-1)]
    except UnicodeDecodeError as error:
        raise BadTensor(f"the input '{tensor.name}' is not UTF-8, which is what models take for text") from error
    return np.array(texts, dtype=object).reshape(tensor.array.shape)


def _signature(node: Any) -> Signature:
    """Without a datatype where the protocol has none for it: a sequence, a map, a rare element type."""
    element = node.type[len("tensor(") : -1] if node.type.startswith("tensor(") else ""
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape or ())
    return Signature(node.name, ONNX_TYPES.get(element, ""), shape)


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A thread that waits sleeps: other workloads share the device.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _providers() -> list[str]:
    available = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" in available and hasattr(onnxruntime, "preload_dlls"):
        # CUDA's libraries came as Python packages, where the loader does not look for them.
        onnxruntime.preload_dlls()
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
