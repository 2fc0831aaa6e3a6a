"""What every piece of state is: a component whose arrays can be copied, written, compared and put back.

A component declares each attribute: `columns` (numpy arrays, or lists of immutable str/bytes) and `scalars`
(JSON values) are its state; `derived` is rebuilt from them, `fixed` comes from settings. A test fails on an
attribute that is in none of the four, so no state can hide from a checkpoint.
"""

from __future__ import annotations

import copy
import hashlib
import sys
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Column = Array | list[str] | list[bytes]
Snapshot = dict[str, Any]
"""Column name to a private copy of the array or list; under "" the scalars as one JSON-able dict."""

Half = Literal["facts", "learned"]
SCALARS = ""
SPARED_BYTES = 1 << 20
"""Columns from this size on are copied into spare memory."""
MAX_SPARES = 2
"""Copies of a column whose memory is kept: one may still be on its way to the disk while the next is made."""


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
        """Copy the state: fast, on the loop. The copy shares nothing mutable with the component.

        Large columns are copied into memory that earlier snapshots, which nobody holds any more, have left behind:
        the first touch of fresh memory costs several times the copy itself.
        """
        n = self.used()
        out: Snapshot = {name: self._copy(name, n) for name in self.columns}
        out[SCALARS] = {name: copy.deepcopy(getattr(self, name)) for name in self.scalars}
        return out

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take the state of `snapshot`, whatever was there before; afterwards this equals the one that was copied."""
        held = self.used()
        for name in self.columns:
            setattr(self, name, _put_back(getattr(self, name), snapshot[name], held))
        for name in self.scalars:
            setattr(self, name, copy.deepcopy(snapshot[SCALARS][name]))
        self.rebuild()
        self._warm()

    def _warm(self) -> None:
        """Touch, beside the loop, the memory that the next snapshot will take."""
        n = self.used()
        large = [name for name in self.columns if _is_large(getattr(self, name))]
        lent = [self._lend(name)[:n] for name in large]
        if sum(view.nbytes for view in lent) >= SPARED_BYTES:
            # What the thread holds counts as lent, so a snapshot that comes too early takes other memory.
            threading.Thread(target=_touch, args=(lent,), name="warm", daemon=True).start()

    def _lend(self, name: str) -> Array:
        spares = _SPARES.setdefault(self, {}).setdefault(name, _Spares())
        return spares.take(getattr(self, name))

    def _copy(self, name: str, n: int | None) -> Any:
        column = getattr(self, name)
        if isinstance(column, list):
            return column.copy()
        if not _is_large(column):
            return column.copy() if n is None else column[:n].copy()
        out = self._lend(name)[:n]
        np.copyto(out, column[:n])
        return out

    def n_bytes(self) -> int:
        """Bytes held by the numpy columns."""
        return sum(c.nbytes for name in self.columns if isinstance(c := getattr(self, name), np.ndarray))


class _Spares:
    """Memory for copies of one column. It is lent as a view, so the references to an array tell whether it is lent."""

    def __init__(self) -> None:
        self._arrays: list[Array] = []

    def take(self, like: Array) -> Array:
        """A view of an array like the given one that nobody else refers to; its content is arbitrary.

        >>> spares, column = _Spares(), np.zeros(3)
        >>> first, second = spares.take(column), spares.take(column)
        >>> address = first.ctypes.data
        >>> del first
        >>> second.ctypes.data != address, spares.take(column).ctypes.data == address
        (True, True)
        """
        self._arrays = [array for array in self._arrays if (array.shape, array.dtype) == (like.shape, like.dtype)]
        for at in range(len(self._arrays)):
            if _references(self._arrays, at) == _UNLENT:
                return self._arrays[at][:]
        fresh = np.empty_like(like)
        if len(self._arrays) < MAX_SPARES:
            self._arrays.append(fresh)
        return fresh[:]


def _is_large(column: Any) -> bool:
    return isinstance(column, np.ndarray) and column.nbytes >= SPARED_BYTES


def _touch(views: list[Array]) -> None:
    while views:
        views.pop().fill(0)


def _references(arrays: list[Array], at: int) -> int:
    return sys.getrefcount(arrays[at])


_UNLENT = _references([np.empty(0)], 0)
"""References to an array that only its list holds."""

_SPARES: weakref.WeakKeyDictionary[Component, dict[str, _Spares]] = weakref.WeakKeyDictionary()
"""No state: what they hold is overwritten before it is seen."""


def _put_back(current: Any, saved: Any, held: int | None) -> Any:
    """The column with the saved values; `held` rows of it were in use, None where it counts whole."""
    if isinstance(current, list):
        return list(saved)
    if held is None:
        return np.array(saved, copy=True)
    if len(saved) > len(current):
        raise ValueError("the snapshot holds more rows than this component's capacity")
    current[: len(saved)] = saved
    current[len(saved) : held] = 0
    return current


def restore_all(components: Mapping[str, Component], snapshots: Mapping[str, Snapshot]) -> None:
    """Put a whole state back into fresh components, two at a time: most of it is memory touched for the first time."""
    largest_first = sorted(components, key=lambda name: -components[name].n_bytes())
    with ThreadPoolExecutor(2, thread_name_prefix="restore") as pool:
        list(pool.map(lambda name: components[name].restore(snapshots[name]), largest_first))


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
