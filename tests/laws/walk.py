"""Walks everything an object reaches, to find state that nobody declared and containers that grow."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

CACHES = frozenset({("EventLines", name) for name in ("_users", "_sessions", "_orders", "_items")})
"""Results of pure functions, emptied when full: they change speed and nothing else."""
PLAIN = (type(None), bool, int, float, complex, str, bytes)
_OPAQUE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)


def _attributes(obj: Any) -> dict[str, Any]:
    names = list(getattr(obj, "__dict__", {}))
    for kind in type(obj).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return {n: getattr(obj, n) for n in names if n not in ("__dict__", "__weakref__") and hasattr(obj, n)}


def _held(obj: Any) -> Iterator[tuple[str, Any]]:
    """(name, value) of what an object holds directly."""
    if isinstance(obj, dict):
        for i, (key, value) in enumerate(obj.items()):
            yield f"key {i}", key
            yield f"[{key!r}]", value
    elif isinstance(obj, list | tuple | set | frozenset):
        yield from ((f"[{i}]", value) for i, value in enumerate(obj))
    elif isinstance(obj, types.MethodType):
        yield "__self__", obj.__self__
    elif not isinstance(obj, (*PLAIN, *_OPAQUE, np.ndarray, np.generic)):
        kind = type(obj).__name__
        yield from ((name, value) for name, value in _attributes(obj).items() if (kind, name) not in CACHES)


def parts(root: Any, wanted: type) -> Iterator[Any]:
    """Every object of type `wanted` that `root` reaches, each once."""
    seen: dict[int, Any] = {}
    stack = [root]
    while stack:
        obj = stack.pop()
        if id(obj) in seen or isinstance(obj, (*PLAIN, *_OPAQUE)):
            continue
        seen[id(obj)] = obj
        if isinstance(obj, wanted):
            yield obj
        stack += [value for _, value in _held(obj)]


def sizes(root: Any) -> dict[str, int]:
    """Path to length of every dict, list, set and byte count of every array that `root` reaches."""
    out: dict[str, int] = {}
    seen: dict[int, Any] = {}

    def walk(obj: Any, path: str) -> None:
        if id(obj) in seen or isinstance(obj, (*PLAIN, *_OPAQUE)):
            return
        seen[id(obj)] = obj
        if isinstance(obj, np.ndarray):
            out[path] = obj.nbytes
            return
        if isinstance(obj, dict | list | set):
            out[path] = len(obj)
        if isinstance(obj, dict | list | set | tuple) and len(obj) > 40:
            return
        for name, value in _held(obj):
            walk(value, f"{path}.{name}")

    walk(root, type(root).__name__)
    return out


def fingerprint(root: Any, skip: tuple[type, ...] = ()) -> dict[str, str]:
    """Path to a digest of every value that `root` reaches; objects of the types `skip` are not entered."""
    out: dict[str, str] = {}
    seen: dict[int, Any] = {}

    def walk(obj: Any, path: str) -> None:
        if isinstance(obj, PLAIN):
            out[path] = repr(obj)
        elif isinstance(obj, np.ndarray):
            out[path] = f"{obj.dtype.str}{obj.shape}{hashlib.sha256(np.ascontiguousarray(obj).tobytes()).hexdigest()}"
        elif isinstance(obj, np.generic):
            out[path] = repr(obj.item())
        elif hasattr(obj, "hexdigest"):
            out[path] = obj.hexdigest()
        elif isinstance(obj, (*skip, *_OPAQUE)) or id(obj) in seen:
            out[path] = type(obj).__name__
        else:
            seen[id(obj)] = obj
            out[path] = f"{type(obj).__name__}[{len(obj)}]" if hasattr(obj, "__len__") else type(obj).__name__
            for name, value in _held(obj):
                walk(value, f"{path}.{name}")

    walk(root, "")
    return out
