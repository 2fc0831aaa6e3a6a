"""Attribution: which shown slate led to which action, and which shown item led to none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream_rec.component import SCALARS, Component, Snapshot
from stream_rec.events import MISSING, Kind
from stream_rec.stream.decisions import Decisions, Said, is_shared
from stream_rec.stream.early import EarlyFeedback
from stream_rec.stream.exposures import CHAIN_STEPS, CLICKED, PURCHASED, Exposed, Exposures, ShownLists, unnamed
from stream_rec.stream.joins import (
    COUNTS,
    EXACT,
    IMPLIED,
    KIND_WINDOWS,
    MINUTE_MS,
    NONE,
    STATUSES,
    WEAKLY,
    WINDOWS_MS,
    Acts,
    Join,
    Joins,
    Matured,
    decision_key,
    shared_key,
)  # fmt: skip
from stream_rec.stream.rows import I32, I64


class Joiner(Component):
    """Joins impressions to published slates and actions to impressions.

    Slates of a tick are published after its records are joined. A decision counts only through an impression that
    names it: the shown list is the impression's, and the wait starts there. `*` has one exposure a user. An action is
    joined by its decision id, else to the newest of the user's last exposures that showed the item within the window
    of the action's type. An action that arrives before its impression is kept and joined when that comes. A repeated
    impression within the click window adds to its exposure; a later one is an exposure of its own.

    Labels never contain a false negative: a weakly joined slot is marked as such, and what is evicted before its
    window closed is counted (`evicted_waiting`, `evicted_open`) and not handed out.
    """

    columns = ("totals", "taken")
    derived = ("_acted",)
    fixed = ("windows_ms", "valid_ms", "disorder_ms", "_window", "_bit", "decisions", "exposures", "early")

    def __init__(
        self,
        max_decisions: int = 200_000,
        max_exposures: int = 200_000,
        n_slots: int = 20,
        *,
        windows_ms: Mapping[str, int] = WINDOWS_MS,
        valid_ms: int = 7 * 1440 * MINUTE_MS,
        disorder_ms: int = 11 * MINUTE_MS,
    ) -> None:
        self.windows_ms = dict(windows_ms)
        self.valid_ms = valid_ms
        self.disorder_ms = disorder_ms
        self.decisions = Decisions(max_decisions, n_slots)
        self.exposures = Exposures(max_exposures, n_slots)
        self.early = EarlyFeedback(max(max_exposures // 16, 64))
        self.totals = np.zeros(len(COUNTS), np.int64)
        self.taken = np.zeros(len(COUNTS), np.int64)
        self._acted: list[int] = []
        """Exposures that got a label since the last `mature`; empty between ticks."""
        self._window = np.full(len(Kind), MISSING, np.int64)
        self._bit = np.zeros(len(Kind), np.uint8)
        for kind, (window, bit) in KIND_WINDOWS.items():
            self._window[kind], self._bit[kind] = self.windows_ms[window], bit

    # ---- state

    def snapshot(self) -> Snapshot:
        """Copy the state, that of the three tables under their names."""
        out = super().snapshot()
        for name, table in self._tables().items():
            copied = table.snapshot()
            out[SCALARS][name] = copied.pop(SCALARS)
            out |= {f"{name}.{column}": values for column, values in copied.items()}
        return out

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take the state of `snapshot`."""
        super().restore(snapshot)
        for name, table in self._tables().items():
            columns = {key[len(name) + 1 :]: value for key, value in snapshot.items() if key.startswith(f"{name}.")}
            table.restore({**columns, SCALARS: snapshot[SCALARS][name]})

    def n_bytes(self) -> int:
        """Bytes held by all columns."""
        return super().n_bytes() + sum(table.n_bytes() for table in self._tables().values())

    def counts(self) -> dict[str, int]:
        """Totals since the first record, by word of COUNTS."""
        return dict(zip(COUNTS, self.totals.tolist(), strict=True))

    def take_interval(self) -> dict[str, Any]:
        """Impressions, clicks and rates since the last call.

        `impressions` are exposures opened; `click_rate` is the share of matured exposures with a click; `join_rate`
        is the share of actions on slates (exact, implied, weak) that an impression backs (exact). None: no case.
        """
        since = dict(zip(COUNTS, (self.totals - self.taken).tolist(), strict=True))
        self.taken[:] = self.totals
        joined = since["exact"] + since["implied"] + since["weak"]
        return {
            "impressions": since["exposed"],
            "clicks": since["clicked"],
            "click_rate": since["clicked"] / since["matured"] if since["matured"] else None,
            "join_rate": since["exact"] / joined if joined else None,
        }

    # ---- slates

    def publish(self, user_row: int, user_born: int, decision: str, *, at_ms: int, items: Sequence[int] | I32) -> None:
        """Remember a slate: `items` are item rows by position; `user_row` EVERYBODY (-1) is `*`."""
        n_unshown = self.decisions.publish(user_row, user_born, decision_key(decision), at_ms=at_ms, items=items)
        self._count("published", 1)
        self._count("unshown", n_unshown)

    def publish_many(
        self, user_rows: Sequence[int], users_born: Sequence[int], decisions: Sequence[str], *, at_ms: int, items: I32,
        said: Said | None = None,
    ) -> None:  # fmt: skip
        """`publish` of a tick's slates at once.

        `items` int32[n, n_slots] is MISSING padded; `said` is of the same slots.
        """
        keys = [decision_key(decision) for decision in decisions]
        n_unshown = self.decisions.publish_many(user_rows, users_born, keys, at_ms=at_ms, items=items, said=said)
        self._count("published", len(keys))
        self._count("unshown", n_unshown)

    def in_force(self, user_row: int, user_born: int, at_ms: int) -> I32 | None:
        """Item rows int32[n_slots] (MISSING padded) of the slate published last before `at_ms`; None: none is valid.

        Users never seen are served `*`: ask with EVERYBODY when this says None.
        """
        row = self.decisions.in_force(user_row, user_born, at_ms, self.valid_ms)
        return None if row == MISSING else self.decisions.items[row].copy()

    def holding(self, items: ArrayLike) -> I32:
        """User rows whose newest slate names one of the given item rows."""
        return self.decisions.holding(items)

    # ---- impressions

    def impression(self, decision_id: str, user_row: int, shown: Sequence[tuple[int, int]], at_ms: int) -> str:
        """Attribute one impression of (item row, position) pairs; `impressions` is the quick way for a whole tick."""
        items, positions = [item for item, _ in shown], [position for _, position in shown]
        return self.impressions(
            [decision_id], [user_row], [at_ms], shown=ShownLists.of([len(items)], items, positions)
        )[0]

    def impressions(
        self, decision_ids: Sequence[str], users: Sequence[int], at_ms: Sequence[int], *, shown: ShownLists
    ) -> list[str]:
        """Open, or add to, an exposure for each impression, in order; the k-th showed the k-th list of `shown`.

        Returns `exposed`, `repeated`, `unknown_decision` or `no_user` for each; only the first two joined anything.
        """
        if len(users) > self.exposures.capacity:
            return self._in_halves(decision_ids, users, at_ms, shown=shown)
        self._count_evicted(self.exposures.make_room(len(users)))
        words, fresh, again, shown_of = [], [], [], {}
        for k, (decision_id, user, at) in enumerate(zip(decision_ids, users, at_ms, strict=True)):
            word, key, row = self._open(decision_id, user, at)
            words.append(word)
            if row != MISSING and (decided := self.decisions.find(decision_key(decision_id))) != MISSING:
                shown_of[row] = decided
            if word == "exposed":
                fresh.append((row, k))
            if word == "repeated" or (key and self.early):
                again.append((row, k, key))
        n_beyond = self.exposures.show_fresh(fresh, shown)
        for row, k, key in again:
            if words[k] == "repeated":
                n_beyond += self.exposures.show(row, *shown.columns(k))
            self._join_early(key, row)
        if shown_of:
            of = list(shown_of.values())
            slates = self.decisions
            self.exposures.carry(list(shown_of), slates.items[of], slates.scored[of], slates.drawn[of])
        self._count("beyond_slots", n_beyond)
        for word, n in Counter(words).items():
            self._count(word, n)
        return words

    def _in_halves(
        self, decision_ids: Sequence[str], users: Sequence[int], at_ms: Sequence[int], *, shown: ShownLists
    ) -> list[str]:
        half = len(users) // 2
        words = []
        for part in (slice(0, half), slice(half, None)):
            lists = ShownLists(shown.items, shown.positions, shown.starts[part], shown.n[part])
            words += self.impressions(decision_ids[part], users[part], at_ms[part], shown=lists)
        return words

    def _open(self, decision_id: str, user: int, at_ms: int) -> tuple[str, int, int]:
        """Word, exposure key and exposure row of one impression; its list is not written yet."""
        word, decision, key = self._place(decision_id, user)
        if word:
            return word, 0, MISSING
        exposures = self.exposures
        row = exposures.find(key)
        if row != MISSING and abs(at_ms - int(exposures.at_ms[row])) <= self.windows_ms["click"]:
            exposures.shown_at(row, at_ms)
            return "repeated", key, row
        return "exposed", key, exposures.open(decision, key, user, at_ms=at_ms)

    def _place(self, decision_id: str, user: int) -> tuple[str, int, int]:
        """(Why not, decision, exposure key) of an impression."""
        if user < 0:
            return "no_user", 0, 0
        decision = decision_key(decision_id)
        row = self.decisions.find(decision)
        if row == MISSING:
            # The decision may have made room for newer ones while its exposure still waits.
            for key in (decision, shared_key(decision, user)):
                if self.exposures.find(key) != MISSING:
                    return "", decision, key
            return "unknown_decision", 0, 0
        self.decisions.shown[row] = True
        return "", decision, self._key(row, decision, user)

    def _key(self, decision_row: int, decision: int, user: int) -> int:
        return shared_key(decision, user) if is_shared(int(self.decisions.user[decision_row])) else decision

    def _join_early(self, key: int, row: int) -> None:
        exposures = self.exposures
        for item, kind, at_ms in self.early.take(key):
            slot = np.flatnonzero(exposures.items[row] == item)
            if len(slot) and at_ms - exposures.at_ms[row] <= self._window[kind]:
                exposures.labels[row, slot[0]] |= self._bit[kind]
                self._acted.append(row)
                self._count("rejoined", 1)

    # ---- feedback

    def feedback(self, kind: int, user_row: int, item_row: int, decision_id: str, at_ms: int) -> Join:
        """Attribute one action; `feedback_many` is the quick way for a whole tick."""
        joins = self.feedback_many([kind], [user_row], [item_row], decisions=[decision_id], at_ms=[at_ms])
        return Join(STATUSES[joins.status[0]], int(joins.position[0]), int(joins.exposure[0]))

    def feedback_many(
        self, kinds: ArrayLike, users: ArrayLike, items: ArrayLike, *, decisions: Sequence[str], at_ms: ArrayLike
    ) -> Joins:
        """Attribute actions, [n] each: event types, user rows, item rows, decision ids ("" none), event times.

        Call it after the impressions of the same tick. Kinds that no window is for, and lines without user or item, are
        `none` and not counted.
        """
        acts = Acts.of(kinds, users, items, at_ms, self._window)
        n = len(acts.kind)
        out = Joins(np.zeros(n, np.int8), np.full(n, MISSING, np.int16), np.full(n, MISSING, np.int32))
        named = [i for i, decision_id in enumerate(decisions) if decision_id and acts.counts[i]]
        if named:
            self._join_named(acts, out, named, decisions)
        left = np.flatnonzero(acts.counts & (out.status == NONE))
        if len(left):
            self._join_weakly(acts, out, left)
        for status, total in enumerate(np.bincount(out.status[acts.counts], minlength=len(STATUSES)).tolist()):
            self._count(STATUSES[status], total)
        return out

    def _join_named(self, acts: Acts, out: Joins, named: list[int], decisions: Sequence[str]) -> None:
        at, rows, published, keys = self._look_up(acts, named, decisions)
        exposures, kind, item = self.exposures, acts.kind[at], acts.item[at]
        slot = np.where(rows != MISSING, exposures.slot(rows, item), MISSING)
        in_window = acts.at_ms[at] - exposures.at_ms[rows] <= self._window[kind]
        shown = slot != MISSING
        exact = shown & in_window
        self._mark(rows[exact], slot[exact], self._bit[kind[exact]])
        clicked = self._bit[kind] == CLICKED
        self._count("after_maturity", int(np.count_nonzero(exact & clicked & exposures.matured[rows])))
        self._count("after_window", int(np.count_nonzero(shown & ~in_window)))
        out.status[at] = np.where(exact, EXACT, np.where(shown, IMPLIED, NONE))
        out.position[at] = np.where(shown, exposures.positions[rows, slot], MISSING)
        out.exposure[at] = np.where(exact, rows, MISSING)
        match = self.decisions.items[published] == item[:, None]
        implied = ~shown & (published != MISSING) & match.any(axis=1)
        out.status[at[implied]] = IMPLIED
        out.position[at[implied]] = match[implied].argmax(axis=1)
        self._count(
            "not_in_list", int(np.count_nonzero(~shown & ~implied & ((rows != MISSING) | (published != MISSING))))
        )
        for i in np.flatnonzero(implied).tolist():
            user, at_ms = int(acts.user[at[i]]), int(acts.at_ms[at[i]])
            self.early.keep(keys[i], user, int(item[i]), kind=int(kind[i]), at_ms=at_ms)

    def _look_up(self, acts: Acts, named: list[int], decisions: Sequence[str]) -> tuple[I64, I32, I32, list[int]]:
        """Places, exposure rows, decision rows and exposure keys of the actions that name a decision."""
        find, publisher = self.exposures.find, self.decisions.find
        rows, published, keys = [], [], []
        for i, user in zip(named, acts.user[named].tolist(), strict=True):
            key = decision_key(decisions[i])
            row = find(key)
            decided = publisher(key)
            if row == MISSING:
                shared = shared_key(key, user)
                row = find(shared)
                if decided != MISSING and is_shared(int(self.decisions.user[decided])):
                    key = shared
            rows.append(row)
            published.append(decided)
            keys.append(key)
        return np.array(named), np.array(rows, np.int32), np.array(published, np.int32), keys

    def _join_weakly(self, acts: Acts, out: Joins, left: NDArray[np.intp]) -> None:
        """Walk back through each user's exposures, all users in step, until one shows the item."""
        exposures = self.exposures
        rows = exposures.newest_many(acts.user[left].tolist())
        for _ in range(CHAIN_STEPS):
            open_ = rows != MISSING
            if not open_.any():
                return
            left, rows = left[open_], rows[open_]
            age_ms = acts.at_ms[left] - exposures.at_ms[rows]
            window = self._window[acts.kind[left]]
            slot = exposures.slot(rows, acts.item[left])
            hit = (slot != MISSING) & (age_ms >= 0) & (age_ms <= window)
            at, row, place = left[hit], rows[hit], slot[hit]
            out.status[at] = WEAKLY
            out.position[at] = exposures.positions[row, place]
            out.exposure[at] = row
            self._mark(row, place, unnamed(self._bit[acts.kind[at]]))
            on = ~hit & (age_ms <= window + self.disorder_ms)
            left, rows = left[on], exposures.older[rows[on]] - 1

    # ---- time

    def mature(self, watermark_ms: int) -> Matured:
        """Exposures whose click window and those whose purchase window closed, each once; the latter are dropped."""
        late, self._acted = self.exposures.late(self._acted), []
        click = self.exposures.mature(watermark_ms - self.windows_ms["click"])
        self._count("matured", len(click.row))
        self._count("clicked", int(np.count_nonzero((click.labels & CLICKED).any(axis=1))))
        purchase = self.exposures.close(watermark_ms - self.windows_ms["purchase"])
        self._count("closed", len(purchase.row))
        return Matured(click, purchase, late)

    def retract(self, user_row: int, item_row: int) -> bool:
        """Take the purchase label of an item back from the user's newest exposure that has it."""
        exposures, row = self.exposures, self.exposures.newest(user_row)
        for _ in range(CHAIN_STEPS):
            if row == MISSING:
                return False
            bought = (exposures.items[row] == item_row) & (exposures.labels[row] & PURCHASED > 0)
            if bought.any():
                exposures.labels[row, bought.argmax()] &= 0xFF ^ PURCHASED
                return True
            row = int(exposures.older[row]) - 1
        return False

    def forget_users(self, users: Sequence[int]) -> None:
        """Drop slates, exposures and early actions of user rows that hold nobody or somebody else now."""
        self.decisions.forget_users(users)
        self._count_evicted(self.exposures.forget_users(users))
        self.early.forget_users(users)

    def forget_items(self, items: Sequence[int]) -> None:
        """Take item rows that hold no item or another one now out of slates and exposures."""
        self.decisions.forget_items(items)
        self.exposures.forget_items(items)
        self.early.forget_items(items)

    def _mark(self, rows: I32, slots: I32, bits: NDArray[np.uint8]) -> None:
        np.bitwise_or.at(self.exposures.labels, (rows, slots), bits)
        self._acted += rows.tolist()

    def _tables(self) -> dict[str, Component]:
        return {"decisions": self.decisions, "exposures": self.exposures, "early": self.early}

    def _count(self, word: str, n: int) -> None:
        if n:
            self.totals[_PLACE[word]] += n

    def _count_evicted(self, evicted: Exposed | None) -> None:
        if evicted is not None and len(evicted.row):
            waiting = int(np.count_nonzero(~evicted.matured))
            self._count("evicted_waiting", waiting)
            self._count("evicted_open", len(evicted.row) - waiting)


_PLACE = {word: i for i, word in enumerate(COUNTS)}
