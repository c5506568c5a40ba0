"""Tensors keep their values through every form of the protocol; threads follow the workload's share."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from templates.runtimes.onnx.tensors import (
    DTYPES,
    FIELDS,
    BadTensor,
    Tensor,
    from_bytes,
    from_elements,
    to_bytes,
    to_json,
)
from templates.runtimes.onnx.threads import thread_count

NUMBERS = [name for name in DTYPES if name != "BYTES"]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def tensors(draw: st.DrawFn, datatypes: list[str]) -> Tensor:
    name = draw(st.sampled_from(datatypes))
    elements: Any = st.text(max_size=5) if name == "BYTES" else None
    return Tensor("t", name, draw(arrays.arrays(DTYPES[name], draw(SHAPES), elements=elements)))


@settings(deadline=None)
@given(tensors(list(DTYPES)))
def test_bytes_keep_every_tensor(tensor: Tensor) -> None:
    back = from_bytes("t", tensor.datatype, tensor.array.shape, to_bytes(tensor))
    if tensor.datatype == "BYTES":
        assert [text.decode() for text in back.array.reshape(-1)] == list(tensor.array.reshape(-1))
    else:
        assert np.array_equal(back.array, tensor.array, equal_nan=tensor.array.dtype.kind == "f")
    assert back.array.shape == tensor.array.shape


@settings(deadline=None)
@given(tensors(list(DTYPES)))
def test_json_keeps_every_tensor_of_finite_numbers(tensor: Tensor) -> None:
    if tensor.array.dtype.kind == "f":
        finite = np.nan_to_num(tensor.array, posinf=0, neginf=0)
        tensor = Tensor("t", tensor.datatype, np.asarray(finite, tensor.array.dtype))
    back = from_elements("t", tensor.datatype, tensor.array.shape, to_json(tensor))
    assert np.array_equal(back.array, tensor.array)


@settings(deadline=None)
@given(tensors(["FP32", "FP64"]))
def test_json_has_null_for_what_is_no_finite_number(tensor: Tensor) -> None:
    for element, number in zip(to_json(tensor), tensor.array.reshape(-1), strict=True):
        assert (element is None) == (not np.isfinite(number))


@settings(deadline=None)
@given(st.sampled_from(NUMBERS), st.binary(max_size=64), st.lists(st.integers(0, 9), max_size=3))
def test_bytes_of_numbers_are_a_tensor_exactly_where_their_count_is_right(
    datatype: str, raw: bytes, shape: list[int]
) -> None:
    if len(raw) == math.prod(shape) * DTYPES[datatype].itemsize:
        assert list(from_bytes("t", datatype, shape, raw).array.shape) == shape
    else:
        with pytest.raises(BadTensor, match="'t'"):
            from_bytes("t", datatype, shape, raw)


@pytest.mark.parametrize("raw", [b"123", b"\x02\0\0\0a", b"\0\0\0\0\0", b"\xff" * 8])
def test_text_that_ends_within_an_element_is_refused(raw: bytes) -> None:
    with pytest.raises(BadTensor, match="ends within an element"):
        from_bytes("t", "BYTES", [1], raw)


@pytest.mark.parametrize(
    ("datatype", "elements"),
    [
        ("UINT8", [256]),
        ("UINT8", [-1]),
        ("INT64", [1.5]),
        ("INT64", [True]),
        ("BOOL", [1]),
        ("FP32", [True]),
        ("INT64", [2**63]),
        ("INT64", [2**63, 0]),
        ("UINT64", [2**64, 0]),
        ("UINT64", [2**63, 0.0]),
        ("FP16", [1e6]),
        ("FP32", [1e300]),
        ("FP32", [2**70, "1"]),
    ],
)
def test_elements_that_do_not_fit_are_refused_and_never_changed(datatype: str, elements: list[Any]) -> None:
    with pytest.raises(BadTensor):
        from_elements("t", datatype, [len(elements)], elements)


def test_whole_numbers_keep_all_of_their_bits() -> None:
    assert from_elements("t", "UINT64", [2], [2**64 - 1, 0]).array.tolist() == [2**64 - 1, 0]
    assert from_elements("t", "INT64", [2], [-(2**63), 2**63 - 1]).array.tolist() == [-(2**63), 2**63 - 1]
    assert from_elements("t", "FP32", [1], [2**70]).array.tolist() == [2.0**70]


def test_every_datatype_but_half_floats_has_a_typed_field() -> None:
    assert set(DTYPES) - set(FIELDS) == {"FP16"}


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    (tmp_path / "cpu").mkdir()
    return tmp_path


def test_threads_are_what_the_environment_says(cgroups: Path) -> None:
    (cgroups / "cpu.max").write_text("100000 100000\n")
    assert thread_count({"OMP_NUM_THREADS": "7"}, cgroups) == 7
    assert thread_count({"OMP_NUM_THREADS": "none"}, cgroups) == 1


@pytest.mark.parametrize(
    ("file", "text"), [("cpu.max", "50000 100000\n"), ("cpu/cpu.cfs_quota_us", "50000\n"), ("cpu.max", "100 100000")]
)
def test_threads_follow_the_limit_of_the_control_group(cgroups: Path, file: str, text: str) -> None:
    (cgroups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (cgroups / file).write_text(text)
    assert thread_count({}, cgroups) == 1


def test_threads_are_as_many_as_processors_without_a_limit(cgroups: Path) -> None:
    processors = len(os.sched_getaffinity(0))
    assert thread_count({}, cgroups) == processors
    (cgroups / "cpu.max").write_text("max 100000\n")
    assert thread_count({}, cgroups) == processors
    (cgroups / "cpu.max").write_text("100000000 100000\n")
    assert thread_count({}, cgroups) == processors
