"""Back to an earlier state: the learned half as it was, with what has been taken back or forgotten since applied again.

The facts stay as they are, and item and user rows may have changed hands since. What that means for the restored half
is read from the facts of both states, the earlier one's and today's, so that nothing has to be kept for it:

- item rows that stand for another item now start again;
- users who are not in the table any more are forgotten, whether they asked for it or made room for others;
- purchases that counted then and are taken back now are taken out of the statistics, the window and the reservoir, as
  far as the ring of histories reaches;
- items whose text is another one now, or that came since, are embedded anew by the usual quota;
- visits that were open then are scored nowhere, and the brake goes on with what was usual then.

Weights are not unlearned. Events between the two states are skipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from stream_rec.component import SCALARS, Component, Snapshot, digest
from stream_rec.events import MISSING, Kind
from stream_rec.learn.batch import COLUMN_TYPES, Retractions
from stream_rec.learn.learner import Learner
from stream_rec.learn.scoring import Catalogue
from stream_rec.learn.versions import Progress
from stream_rec.stream.intake import Facts
from stream_rec.stream.users import stable

Array = np.ndarray[Any, np.dtype[Any]]
State = Mapping[str, Snapshot]
"""A whole state, as `Pipeline.snapshot` gives it."""

TEXTS = ("titles", "brands", "categories")


def learned_names(components: Mapping[str, Component]) -> list[str]:
    """Names of the components that a rollback restores."""
    return [name for name, component in components.items() if component.half == "learned"]


def digest_of(state: State, names: Iterable[str]) -> str:
    """SHA-256 over the named components of a state, in the order of their names."""
    sha = hashlib.sha256()
    for name in sorted(names):
        sha.update(f"{name}|{digest(state[name])}|".encode())
    return sha.hexdigest()


def go_back(facts: Facts, learner: Learner, components: Mapping[str, Component], *, then: State, version: str) -> None:
    """Restore the learned half; see the module docstring.

    Args:
        facts: as they are; window and reservoir, which are of the learned half, are restored.
        learner: restored.
        components: the component table of both.
        then: the earlier state.
        version: the challenger of that state, to serve; "" for its champion.
    """
    before = Progress("")
    before.restore(learner.versions.progress.snapshot())
    for name in learned_names(components):
        components[name].restore(then[name])
    learner.forget_items(_changed_hands(facts, then))
    _forget_users(facts, learner, then)
    _take_back(facts, learner, then)
    learner.pending.drop()
    learner.oversight.brake.resume(facts.watermarks.global_ms)
    learner.versions.go_on_from(version, before)
    learner.tell(_retold(facts, then), facts.items.n, facts.items.text, quota=0)


def _changed_hands(facts: Facts, then: State) -> Array:
    """Item rows that stood for another item then, int32."""
    born = then["items"]["born"]
    return np.flatnonzero(facts.items.born[: len(born)] != born).astype(np.int32)


def _forget_users(facts: Facts, learner: Learner, then: State) -> None:
    born, key = then["users"]["born"], then["users"]["key"]
    gone = np.flatnonzero((born != 0) & ~np.isin(born, facts.users.born[: facts.users.used()]))
    if len(gone):
        for examples in (facts.window, facts.reservoir):
            examples.forget_users(born[gone])
        learner.forget_users(stable(key[gone]))


def _take_back(facts: Facts, learner: Learner, then: State) -> None:
    """Purchases that were live then and have been taken back since; those of a forgotten user are blank by now."""
    histories, items = facts.histories, facts.items
    next_then = int(then["histories"][SCALARS]["next_serial"])
    serial = np.arange(min(histories.first_serial, next_then), next_then)
    at = serial % histories.capacity
    back = then["histories"]["live"][at] & ~histories.live[at] & (histories.kind[at] == Kind.PURCHASE)
    back &= (histories.item[at] != MISSING) & (serial >= items.born[histories.item[at]])
    serial, at = serial[back], at[back]
    if not len(serial):
        return
    for row in at.tolist():
        who, what, when = (int(column[row]) for column in (histories.user, histories.item, histories.at_ms))
        for table in (facts.window, facts.reservoir):
            table.retract_purchase(who, what, at_ms=when)
    pointer = _pointers(facts, then, serial.tolist(), histories.user[at].tolist(), before=next_then)
    columns = {
        "user": np.where(pointer == serial, MISSING, histories.user[at]),
        "item": histories.item[at],
        "at_ms": histories.at_ms[at],
        "visit": histories.visit[at],
        "pointer": pointer,
        "serial": serial,
    }
    retractions = Retractions(**{name: column.astype(COLUMN_TYPES[name]) for name, column in columns.items()})
    catalogue = Catalogue(items.n, items.servable(), items.born[: items.n])
    learner.retract(retractions, histories, catalogue)


def _pointers(facts: Facts, then: State, serials: list[int], users: list[int], *, before: int) -> Array:
    """Where the buyers' histories began then, by purchase; the purchase itself where the buyer's is not known."""
    newest = then["users"]["last_row"]
    out = []
    for serial, user in zip(serials, users, strict=True):
        start = int(newest[user]) if 0 <= user < len(newest) else MISSING
        pointer = facts.histories.pointer_above(serial, start, before)
        out.append(serial if pointer == MISSING else pointer)
    return np.array(out, np.int64)


def _retold(facts: Facts, then: State) -> list[int]:
    """Item rows whose text is not what it was then, rising."""
    items, n_then = facts.items, len(then["items"]["born"])
    now = [getattr(items, name) for name in TEXTS]
    was = [then["items"][name] for name in TEXTS]
    changed = [row for row in range(n_then) if any(a[row] != b[row] for a, b in zip(now, was, strict=True))]
    moved = set(_changed_hands(facts, then).tolist())
    return sorted({*changed, *moved, *range(n_then, items.n)})
