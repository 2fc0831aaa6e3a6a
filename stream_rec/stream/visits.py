"""Which visit each event belongs to, and how a tick's events chain into the histories.

A visit is a session, else an order, else a stretch of events without a gap of 30 minutes of event time. An event that
names neither goes on with whatever visit its user has open. Visit serials of one user never fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from stream_rec.events import MISSING

Int64s = np.ndarray[Any, np.dtype[np.int64]]
Int32s = np.ndarray[Any, np.dtype[np.int32]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


class Visits(NamedTuple):
    """The visit of each event of a tick, arrays [n]."""

    serial: Int64s
    """Visit serial; MISSING where the event has no user."""
    opened: Bools
    """Whether the event is the first of its visit."""
    before: Int64s
    """The user's history pointer before the first event of the visit; MISSING without a user."""


class OpenVisits(Protocol):
    """Columns, by user row, of the visit each user is in."""

    gap_ms: int
    n_visits_started: int
    visit_serial: Int64s
    visit_key: Int64s
    visit_start_ms: Int64s
    visit_last_ms: Int64s
    visit_before: Int64s
    n_visits: Int32s


def assign(users: OpenVisits, rows: Int32s, keys: Sequence[int], /, at_ms: Int64s, before: Int64s) -> Visits:
    """Put a tick's events into their users' visits, in order; changes `users`.

    Args:
        users: the visits that are open; `visit_serial` is MISSING for a user without one.
        rows: user row of each event, MISSING without a user, [n].
        keys: session digest, else order digest, else 0, [n].
        at_ms: event time, [n].
        before: the user's history pointer before each event, [n].
    """
    known, where = np.unique(rows, return_inverse=True)
    key_of, last_of = users.visit_key[known].tolist(), users.visit_last_ms[known].tolist()
    serial_of, before_of = users.visit_serial[known].tolist(), users.visit_before[known].tolist()
    nobody = 0 if len(known) and known[0] == MISSING else MISSING
    serial, start, opened = [], [], []
    gap_ms, n_started = users.gap_ms, users.n_visits_started
    columns = zip(where.tolist(), keys, at_ms.tolist(), before.tolist(), strict=True)
    for i, (user, key, at, pointer) in enumerate(columns):
        if user == nobody:
            serial.append(MISSING)
            start.append(MISSING)
            continue
        last = last_of[user]
        if serial_of[user] != MISSING and (key == key_of[user] if key else at - last <= gap_ms):
            if at > last:
                last_of[user] = at
        else:
            serial_of[user], key_of[user], last_of[user], before_of[user] = n_started, key, at, pointer
            n_started += 1
            opened.append(i)
        serial.append(serial_of[user])
        start.append(before_of[user])
    users.n_visits_started = n_started
    mine = slice(nobody + 1, None)
    changed = known[mine]
    users.visit_key[changed], users.visit_last_ms[changed] = key_of[mine], last_of[mine]
    users.visit_serial[changed], users.visit_before[changed] = serial_of[mine], before_of[mine]
    users.visit_start_ms[rows[opened]] = at_ms[opened]
    np.add.at(users.n_visits, rows[opened], 1)
    first = np.zeros(len(rows), np.bool_)
    first[opened] = True
    return Visits(np.array(serial, np.int64), first, np.array(start, np.int64))


def chain(last_row: Int64s, rows: Int32s, positive: Bools, next_serial: int) -> Int64s:
    """Chain a tick's positive events behind their users' newest history rows; moves `last_row`.

    Args:
        last_row: newest history row of each user row; changed.
        rows: user row of each event, MISSING without a user, [n].
        positive: which events get a history row, [n]; they take serials `next_serial`, `next_serial + 1`, ...
        next_serial: the serial the first of them gets.

    Returns:
        The user's history pointer before each event, int64 [n]; at a positive event this is `prev` of its row.

    >>> chain(np.array([7, MISSING]), np.array([0, 1, 0]), np.array([True, True, True]), 20).tolist()
    [7, -1, 20]
    """
    n = len(rows)
    serials = next_serial - 1 + np.cumsum(positive)
    order = np.argsort(rows, kind="stable")
    row, chosen, at = rows[order], positive[order], np.arange(n)
    start = np.maximum.accumulate(np.where(np.diff(row, prepend=row[:1] - 1) != 0, at, 0))
    newest = np.full(n, MISSING, np.int64)
    np.maximum.accumulate(np.where(chosen, at, MISSING)[:-1], out=newest[1:])
    before = np.empty(n, np.int64)
    before[order] = np.where(newest >= start, serials[order][newest], last_row[row])
    before[rows == MISSING] = MISSING
    moved = np.flatnonzero(positive & (rows != MISSING))
    last_row[rows[moved]] = serials[moved]
    return before
