"""The words of attribution: windows, statuses, counts, and what a join says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stream_rec.events import Kind
from stream_rec.stream.exposures import BOUGHT, CARTED, CLICKED, Exposed
from stream_rec.stream.rows import I8, I16, I32, I64, Bools
from stream_rec.stream.sampling import hash_one

MINUTE_MS = 60_000
WINDOWS_MS: Mapping[str, int] = {"click": 30 * MINUTE_MS, "cart": 6 * 60 * MINUTE_MS, "purchase": 7 * 1440 * MINUTE_MS}

STATUSES = ("none", "weak", "implied", "exact")
NONE, WEAKLY, IMPLIED, EXACT = range(4)

KIND_WINDOWS: Mapping[Kind, tuple[str, int]] = {
    Kind.CLICK: ("click", CLICKED),
    Kind.VIEW_ITEM: ("click", CLICKED),
    Kind.ADD_TO_CART: ("cart", CARTED),
    Kind.ADD_TO_WISHLIST: ("cart", CARTED),
    Kind.SHARE: ("cart", CARTED),
    Kind.PURCHASE: ("purchase", BOUGHT),
    Kind.REVIEW: ("purchase", BOUGHT),
}

COUNTS = (
    *("exact", "implied", "weak", "none"),
    *("exposed", "repeated", "unknown_decision", "no_user", "beyond_slots"),
    *("published", "unshown", "matured", "clicked", "closed"),
    *("not_in_list", "after_window", "after_maturity", "rejoined", "evicted_waiting", "evicted_open"),
)


class Join(NamedTuple):
    """What one action was attributed to."""

    status: str
    """`exact`: an impression named the decision; `implied`: only the action did; `weak`: by user and item; `none`."""
    position: int
    """Position in the list, MISSING when `none`."""
    exposure: int
    """Row in `Exposures`; MISSING when `none` or `implied`."""


class Joins(NamedTuple):
    """`Join` as columns [n]."""

    status: I8
    """Index into STATUSES."""
    position: I16
    exposure: I32


class Matured(NamedTuple):
    """What time has settled."""

    click: Exposed
    """Their CLICKED bits are complete; purchases may still join."""
    purchase: Exposed
    """All their bits are complete."""
    late: Exposed
    """Matured earlier, and since the last call some slot has become positive; see `Exposures.late`."""


def decision_key(decision_id: str) -> int:
    """63-bit digest of a decision id; never 0.

    >>> decision_key("d1")
    1439193905492355582
    """
    raw = hashlib.blake2b(decision_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(raw, "little") >> 1 or 1


class Acts(NamedTuple):
    """A tick's actions as columns; `counts` are those that can join at all."""

    kind: I64
    user: I64
    item: I32
    at_ms: I64
    counts: Bools

    @classmethod
    def of(cls, kinds: ArrayLike, users: ArrayLike, items: ArrayLike, at_ms: ArrayLike, window: I64) -> Acts:
        """Columns from anything like an array; `window` by kind in ms, MISSING where nothing joins."""
        kind, user, item = np.asarray(kinds, np.int64), np.asarray(users, np.int64), np.asarray(items, np.int32)
        return cls(kind, user, item, np.asarray(at_ms, np.int64), (window[kind] >= 0) & (user >= 0) & (item >= 0))


def shared_key(decision: int, user: int) -> int:
    """Key of the exposure of one user to a slate that many see."""
    return hash_one(decision, user) >> 1 or 1
