"""What every piece of state is: a component whose arrays can be copied, written, compared and put back.

A component declares each attribute: `columns` (numpy arrays, or lists of immutable str/bytes) and `scalars`
(JSON values) are its state; `derived` is rebuilt from them, `fixed` comes from settings. A test fails on an
attribute that is in none of the four, so no state can hide from a checkpoint.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np

Column = np.ndarray[Any, np.dtype[Any]] | list[str] | list[bytes]
Snapshot = dict[str, Any]
"""Column name to a private copy of the array or list; under "" the scalars as one JSON-able dict."""

Half = Literal["facts", "learned"]
SCALARS = ""


class Component:
    """State with declared columns; base of everything in the component table."""

    half: ClassVar[Half] = "facts"
    columns: ClassVar[tuple[str, ...]] = ()
    scalars: ClassVar[tuple[str, ...]] = ()
    derived: ClassVar[tuple[str, ...]] = ()
    fixed: ClassVar[tuple[str, ...]] = ()

    def used(self) -> int | None:
        """Rows of the columns that hold anything; None when every column counts whole.

        Rows from `used()` on must be in their initial state (zero, or what `blank` puts there).
        """
        return None

    def rebuild(self) -> None:
        """Recompute `derived` from columns and scalars; called after `restore`."""

    def snapshot(self) -> Snapshot:
        """Copy the state: fast, on the loop. The copy shares nothing mutable with the component."""
        n = self.used()
        out: Snapshot = {name: _copy(getattr(self, name), n) for name in self.columns}
        out[SCALARS] = {name: copy.deepcopy(getattr(self, name)) for name in self.scalars}
        return out

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take the state of `snapshot` into a fresh component; afterwards it equals the one that was copied."""
        for name in self.columns:
            setattr(self, name, _put_back(getattr(self, name), snapshot[name], self.used_limit()))
        for name in self.scalars:
            setattr(self, name, copy.deepcopy(snapshot[SCALARS][name]))
        self.rebuild()

    def used_limit(self) -> bool:
        """Whether `snapshot` trims columns to `used()` rows."""
        return type(self).used is not Component.used

    def n_bytes(self) -> int:
        """Bytes held by the numpy columns."""
        return sum(c.nbytes for name in self.columns if isinstance(c := getattr(self, name), np.ndarray))


def _copy(column: Any, n: int | None) -> Any:
    if isinstance(column, list):
        return column.copy()
    return column.copy() if n is None else column[:n].copy()


def _put_back(current: Any, saved: Any, trimmed: bool) -> Any:
    if isinstance(current, list):
        return list(saved)
    if not trimmed:
        return np.array(saved, copy=True)
    if len(saved) > len(current):
        raise ValueError("the snapshot holds more rows than this component's capacity")
    current[: len(saved)] = saved
    return current


def digest(snapshot: Mapping[str, Any]) -> str:
    """SHA-256 over a component's snapshot, in one canonical order.

    >>> digest({"a": np.arange(3), "": {"n": 1}}) == digest({"": {"n": 1}, "a": np.arange(3)})
    True
    """
    sha = hashlib.sha256()
    for name in sorted(snapshot):
        value = snapshot[name]
        if isinstance(value, np.ndarray):
            sha.update(f"{name}|{value.dtype.str}|{value.shape}|".encode())
            sha.update(np.ascontiguousarray(value).data if value.size else b"")
        else:
            sha.update(name.encode() + b"|" + msgspec.json.encode(value, order="sorted"))
    return sha.hexdigest()
