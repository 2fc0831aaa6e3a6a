"""A component's snapshot as one safetensors file, written without a copy and read without pickle.

The layout is safetensors' own (8 bytes little-endian length of a JSON header, the header padded to 8 bytes, then the
raw arrays), so any safetensors reader opens it. What safetensors has no word for is put in `__metadata__`: the scalars,
and the columns of text, which become two tensors: their characters and the length of each row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from stream_rec.component import SCALARS, Snapshot
from stream_rec.io.durable import Bytes

_NAMES = {
    "|b1": "BOOL",
    "|i1": "I8",
    "|u1": "U8",
    "<i2": "I16",
    "<u2": "U16",
    "<i4": "I32",
    "<u4": "U32",
    "<i8": "I64",
    "<u8": "U64",
    "<f2": "F16",
    "<f4": "F32",
    "<f8": "F64",
}
_TEXT, _LENGTHS = "/text", "/lengths"
_ALIGNMENT = 8


def encode_scalars(snapshot: Mapping[str, Any]) -> str:
    """The scalars as JSON; floats keep every bit, NaN and infinities too.

    Raises:
        TypeError: a scalar is no JSON value (a numpy number, a set).

    >>> encode_scalars({"": {"n": 1, "rate": 0.1}})
    '{"n": 1, "rate": 0.1}'
    """
    return json.dumps(snapshot.get(SCALARS, {}))


def pack(columns: Mapping[str, Any], scalars: str) -> list[Bytes]:
    """The file's bytes in parts that share memory with the columns.

    Args:
        columns: name to array of any fixed-size dtype without fields, or to list of str or of bytes.
        scalars: JSON of `encode_scalars`.

    Raises:
        TypeError: a column is neither.
    """
    kinds: dict[str, str] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        if name == SCALARS:
            continue
        if isinstance(column, list):
            kinds[name], arrays[name + _TEXT], arrays[name + _LENGTHS] = _pack_list(column)
        else:
            array = np.asarray(column, order="C")
            kinds[name] = _kind(array, name)
            arrays[name] = array
    header: dict[str, Any] = {"__metadata__": {"kinds": json.dumps(kinds), "scalars": scalars}}
    parts: list[Bytes] = []
    at = 0
    for name in sorted(arrays, key=lambda name: (-_item_bytes(arrays[name]), name)):
        array = arrays[name]
        known = _NAMES.get(array.dtype.str)
        shape = list(array.shape) if known else [*array.shape, array.dtype.itemsize]
        header[name] = {"dtype": known or "U8", "shape": shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
        if array.nbytes:
            parts.append(array.reshape(-1).view(np.uint8).data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return [len(text).to_bytes(8, "little"), text, *parts]


def unpack(data: np.ndarray) -> Snapshot:
    """The snapshot of a file's bytes; arrays are views into `data`.

    Args:
        data: uint8[n], writable so that the arrays are.

    Raises:
        ValueError, KeyError: these are no bytes of `pack`.
    """
    n_header = int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8 : 8 + n_header].tobytes())
    body = data[8 + n_header :]
    metadata = header["__metadata__"]
    out: Snapshot = {SCALARS: json.loads(metadata["scalars"])}
    for name, kind in json.loads(metadata["kinds"]).items():
        if kind in ("str", "bytes"):
            out[name] = _unpack_list(kind, _raw(header, body, name + _TEXT), _raw(header, body, name + _LENGTHS))
        else:
            out[name] = _unpack_array(np.dtype(kind), header[name]["shape"], _raw(header, body, name))
    return out


def _kind(array: np.ndarray, name: str) -> str:
    if array.dtype.hasobject or array.dtype.names is not None or not array.dtype.itemsize:
        raise TypeError(f"column {name}: arrays of {array.dtype} cannot be stored")
    return array.dtype.str


def _item_bytes(array: np.ndarray) -> int:
    """Larger items first keeps each array on a multiple of its item's size; odd sizes go last."""
    return array.dtype.itemsize if array.dtype.str in _NAMES else 0


def _pack_list(column: list[Any]) -> tuple[str, np.ndarray, np.ndarray]:
    """Join once, in C; `surrogatepass` because JSON may hold half a surrogate pair."""
    lengths = np.fromiter(map(len, column), np.int64, len(column))
    if column and isinstance(column[0], bytes):
        return "bytes", np.frombuffer(b"".join(column), np.uint8), lengths
    return "str", np.frombuffer("".join(column).encode("utf-8", "surrogatepass"), np.uint8), lengths


def _unpack_list(kind: str, text: np.ndarray, lengths: np.ndarray) -> list[Any]:
    raw = text.tobytes()
    whole = raw if kind == "bytes" else raw.decode("utf-8", "surrogatepass")
    ends = np.cumsum(lengths.view(np.int64))
    starts = ends - lengths.view(np.int64)
    return [whole[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


def _raw(header: Mapping[str, Any], body: np.ndarray, name: str) -> np.ndarray:
    first, last = header[name]["data_offsets"]
    return body[first:last]


def _unpack_array(dtype: np.dtype[Any], shape: list[int], raw: np.ndarray) -> np.ndarray:
    known = dtype.str in _NAMES
    return raw.view(dtype).reshape(shape if known else shape[:-1])
