"""Snapshots as safetensors: any safetensors reader opens them, and nothing in a column is lost."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream_rec.io.durable import Bytes
from stream_rec.io.tensors import encode_scalars, pack, unpack


def whole(parts: list[Bytes]) -> np.ndarray:
    return np.frombuffer(bytearray(b"".join(parts)), np.uint8)


DTYPES = st.sampled_from(
    ["?", "i1", "u1", "i2", "i4", "u8", "f2", "f4", "f8", "c16", ">i4", "V16", "S3", "U2", "M8[s]"]
)
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4).map(
        lambda shape: (
            np.frombuffer(bytes(i % 100 for i in range(int(np.prod(shape)) * np.dtype(dtype).itemsize)), np.uint8)
            .view(dtype)
            .reshape(shape)
            if dtype not in ("?", "U2")
            else np.ones(shape, dtype)
        )
    )
)
TEXTS = st.lists(st.text(st.characters(), max_size=5), max_size=6) | st.lists(st.binary(max_size=5), max_size=6)


@settings(derandomize=True, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), ARRAYS | TEXTS, max_size=4))
def test_every_column_comes_back(columns: dict[str, object]) -> None:
    read = unpack(whole(pack(columns, "{}")))
    for name, column in columns.items():
        if isinstance(column, np.ndarray):
            assert (read[name].dtype, read[name].shape) == (column.dtype, column.shape)
            assert read[name].tobytes() == column.tobytes()
        else:
            assert read[name] == column


@settings(derandomize=True, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), ARRAYS | TEXTS, max_size=4))
def test_the_safetensors_library_opens_it(columns: dict[str, object]) -> None:
    safetensors.numpy.load(whole(pack(columns, "{}")).tobytes())


def test_a_plain_column_is_the_same_tensor_for_safetensors() -> None:
    column = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    read = safetensors.numpy.load(whole(pack({"odd": np.zeros(3, np.int8), "w": column}, "{}")).tobytes())
    assert np.array_equal(read["w"], column)


def test_a_column_major_array_keeps_its_values() -> None:
    column = np.asfortranarray(np.arange(6).reshape(2, 3))
    assert np.array_equal(unpack(whole(pack({"a": column}, "{}")))["a"], column)


def test_arrays_come_back_aligned_and_writable() -> None:
    columns = {"a": np.zeros(3, np.int8), "b": np.zeros(3), "c": ["x"], "d": np.zeros(1, np.int16)}
    read = unpack(whole(pack(columns, '{"n": 1}')))
    assert all(read[name].flags.aligned and read[name].flags.writeable for name in "abd")


def test_the_parts_share_memory_with_the_columns() -> None:
    column = np.zeros(1000)
    parts = pack({"a": column}, "{}")
    assert np.shares_memory(np.frombuffer(parts[-1], np.uint8), column)


@pytest.mark.parametrize("column", [np.array([None]), np.zeros(2, [("a", "i4")]), [1, 2], ["a", b"b"]])
def test_what_cannot_be_stored_faithfully_is_refused(column: object) -> None:
    with pytest.raises(TypeError):
        pack({"a": column}, "{}")


def test_a_set_is_no_scalar() -> None:
    with pytest.raises(TypeError):
        encode_scalars({"": {"n": {1}}})
