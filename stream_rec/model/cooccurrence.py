"""Which items go together: streaming pair counts, of one visit (item-kNN) or of a visit and the ones after it.

Exact (a dense matrix) up to `exact_items`; above, each item keeps its `n_neighbours` strongest partners. The
conversion is deterministic: strongest first, equal ones by row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component

Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

FIRST_ROWS = 512


class Cooccurrence(Component):
    """Sums over pairs of items: how often b was taken with a, or after a.

    Args:
        exact_items: up to this many items every pair is kept.
        n_neighbours: partners an item keeps above that.
        directed: a pair counts from a to b only; else both ways.

    >>> together = Cooccurrence()
    >>> together.add(np.array([0, 0], np.int32), np.array([1, 2], np.int32), n_items=3)
    >>> together.sums(np.zeros(1, np.int32), np.ones(1, np.float32), np.zeros(1, np.int64), n_users=1, n_items=3)
    array([[0., 1., 1.]], dtype=float32)
    """

    half = "learned"
    columns = ("dense", "neighbour", "strength")
    scalars = ("exact",)
    fixed = ("exact_items", "n_neighbours", "directed")

    def __init__(self, exact_items: int = 5_000, n_neighbours: int = 200, *, directed: bool = False) -> None:
        self.exact_items, self.n_neighbours, self.directed = exact_items, n_neighbours, directed
        self.dense = np.zeros((0, 0), np.float32)
        self.neighbour = np.zeros((0, n_neighbours), np.int32)
        self.strength = np.zeros((0, n_neighbours), np.float32)
        self.exact = True

    def add(self, a: Rows, b: Rows, n_items: int, *, weight: Floats | None = None, sign: int = 1) -> None:
        """Count pairs (a, b), each [P], by their weight (default 1); `sign` -1 takes back, never below zero."""
        self._reserve(n_items)
        if not len(a):
            return
        amount = np.full(len(a), sign, np.float32) if weight is None else sign * weight
        if not self.directed:
            a, b, amount = np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([amount, amount])
        if self.exact:
            flat, cells = self.dense.reshape(-1), a.astype(np.int64) * self.dense.shape[1] + b
            np.add.at(flat, cells, amount)
            if sign < 0:
                flat[cells] = np.maximum(flat[cells], 0)
            return
        pairs, which = np.unique(a.astype(np.int64) * n_items + b, return_inverse=True)
        total = np.bincount(which, amount, len(pairs)).astype(np.float32)
        self._add_sparse(pairs // n_items, (pairs % n_items).astype(np.int32), total)

    def sums(self, item: Rows, weight: Floats, owner: npt.NDArray[np.int64], *, n_users: int, n_items: int) -> Floats:
        """Weighted partner counts of what each user has, float32 [n_users, n_items].

        Args:
            item: items of all users, [R], those of one user together, users in rising order.
            weight: [R].
            owner: whose item it is, 0..n_users-1, [R].
            n_users: users.
            n_items: columns of the answer.
        """
        out = np.zeros((n_users, n_items), np.float32)
        bounds = np.searchsorted(owner, np.arange(n_users + 1))
        for user, (low, high) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
            if low == high:
                continue
            if self.exact:
                width = min(n_items, self.dense.shape[1])
                known = item[low:high] < width
                out[user, :width] = weight[low:high][known] @ self.dense[item[low:high][known], :width]
            else:
                out[user] = self._sum_sparse(item[low:high], weight[low:high], n_items)
        return out

    def partners(self, item: Rows, limit: int) -> Rows:
        """The strongest partners of any of `item`, each once, rising; at most `limit` an item."""
        if self.exact or not len(item):
            return np.zeros(0, np.int32)
        rows = item[item < len(self.neighbour)]
        strength = self.strength[rows]
        best = np.argsort(-strength, axis=1, kind="stable")[:, :limit]
        ids = np.take_along_axis(self.neighbour[rows], best, axis=1)
        return np.unique(ids[np.take_along_axis(strength, best, axis=1) > 0]).astype(np.int32)

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items."""
        if self.exact:
            rows = rows[rows < len(self.dense)]
            self.dense[rows] = 0
            self.dense[:, rows] = 0
            return
        self.strength[rows[rows < len(self.strength)]] = 0
        self.strength[np.isin(self.neighbour, rows)] = 0
        self.neighbour[self.strength == 0] = 0

    def _reserve(self, n_items: int) -> None:
        if self.exact and n_items > self.exact_items:
            self._convert()
        held = len(self.dense) if self.exact else len(self.neighbour)
        if n_items <= held:
            return
        room = max(FIRST_ROWS, held)
        while room < n_items:
            room *= 2
        if self.exact:
            room = min(room, max(self.exact_items, n_items))
            grown = np.zeros((room, room), np.float32)
            grown[:held, :held] = self.dense
            self.dense = grown
            return
        for name in ("neighbour", "strength"):
            old = getattr(self, name)
            grown = np.zeros((room, self.n_neighbours), old.dtype)
            grown[:held] = old
            setattr(self, name, grown)

    def _convert(self) -> None:
        held, kept = len(self.dense), min(self.n_neighbours, len(self.dense))
        self.neighbour = np.zeros((held, self.n_neighbours), np.int32)
        self.strength = np.zeros((held, self.n_neighbours), np.float32)
        best = np.argsort(-self.dense, axis=1, kind="stable")[:, :kept]
        self.strength[:, :kept] = np.take_along_axis(self.dense, best, axis=1)
        self.neighbour[:, :kept] = np.where(self.strength[:, :kept] > 0, best, 0)
        self.dense, self.exact = np.zeros((0, 0), np.float32), False

    def _add_sparse(self, row: npt.NDArray[np.int64], partner: Rows, count: Floats) -> None:
        match = (self.neighbour[row] == partner[:, None]) & (self.strength[row] > 0)
        found, slot = match.any(axis=1), match.argmax(axis=1)
        old = self.strength[row[found], slot[found]]
        self.strength[row[found], slot[found]] = np.maximum(old + count[found], 0)
        left = np.flatnonzero(~found & (count > 0))
        while len(left):  # one newcomer an item and round: it takes the weakest partner's place
            _, first = np.unique(row[left], return_index=True)
            now = left[first]
            weakest = self.strength[row[now]].argmin(axis=1)
            self.neighbour[row[now], weakest], self.strength[row[now], weakest] = partner[now], count[now]
            left = np.delete(left, first)

    def _sum_sparse(self, item: Rows, weight: Floats, n_items: int) -> Floats:
        held = item < len(self.neighbour)
        rows = item[held]
        weights = (self.strength[rows] * weight[held][:, None]).ravel().astype(np.float64)
        return np.bincount(self.neighbour[rows].ravel(), weights, minlength=n_items)[:n_items].astype(np.float32)
