"""A shop's traffic as bytes, made cheaply: visits, published slates, impressions of them, actions, repeats.

Everything follows from the seed. A slice of visits is open at a time; each event belongs to one of them. After each
tick every visit that had an event is published a slate, which later impressions of that visit name and show.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stream_rec.events import MISSING, Record, Topic
from stream_rec.stream.intake import Facts, Taken
from stream_rec.stream.tick import Tick

Array = np.ndarray[Any, np.dtype[Any]]

TICK = 1_024
START_MS = 1_767_225_600_000
N_SLOTS = 20
KINDS = {
    "view_item": 0.46,
    "click": 0.16,
    "impression": 0.11,
    "search": 0.09,
    "add_to_cart": 0.08,
    "purchase": 0.045,
    "remove_from_cart": 0.02,
    "add_to_wishlist": 0.015,
    "review": 0.01,
    "share": 0.005,
    "refund": 0.005,
}
WORDS = ("red", "mug", "summer", "dress", "oak", "lamp", "running", "shoe", "size 42", "gift", "blue", "linen")
N_REPEATED, N_LATE = 8, 2
"""Records of a tick that came before, and that come too late."""


class Slates(NamedTuple):
    """What a worker would publish after the tick, [m] each."""

    users: list[str]
    """Raw user ids."""
    decisions: list[str]
    items: Array
    """int [m, N_SLOTS], places in `Traffic.item_ids`."""


class Batch(NamedTuple):
    """One tick."""

    tick: Tick
    records: list[Record]
    slates: Slates


class Traffic:
    """Endless ticks.

    Args:
        seed: of every draw.
        n_users: real users; one visit in `anonymous_one_in` is of a session without a user instead.
        n_items: catalogue.
        n_partitions: of the events topic, keyed by user.
        n_open: visits open at a time.
        step_ms: event time between two events.
        start_ms: event time at which the first tick begins.
    """

    anonymous_one_in = 20
    mean_visit = 6

    def __init__(
        self,
        seed: int,
        *,
        n_users: int = 100_000,
        n_items: int = 20_000,
        n_partitions: int = 4,
        n_open: int = 4_096,
        step_ms: int = 250,
        start_ms: int = START_MS,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._start_ms = start_ms
        self._n_users, self._n_partitions, self._step_ms = n_users, n_partitions, step_ms
        self.item_ids = [f"SKU-{i:06d}" for i in range(n_items)]
        self._thing = [f'{{"item_id":"{name}","position":' for name in self.item_ids]
        self._price = [f"{p:.2f}" for p in (1 + self._rng.random(n_items) * 99).tolist()]
        self._offsets = [0] * n_partitions
        self._n_ticks = self._n_visits = 0
        self._user = [""] * n_open
        self._session = [""] * n_open
        self._decision = [""] * n_open
        self._shown: list[list[int]] = [[] for _ in range(n_open)]
        self._open(list(range(n_open)))

    def catalogue(self) -> Batch:
        """A record of the items topic for each item."""
        records = []
        for i, name in enumerate(self.item_ids):
            title = f"{WORDS[i % 12]} {WORDS[i // 12 % 12]} {i}"
            value = f'{{"title":"{title}","category":"c{i % 97}","price":{self._price[i]}}}'
            records.append(Record(Topic.ITEMS, 0, i, self._start_ms, name.encode(), value.encode()))
        return Batch(Tick(0, (), self._start_ms), records, Slates([], [], np.empty((0, N_SLOTS), np.int64)))

    def tick(self, n: int = TICK) -> Batch:
        """The next `n` events."""
        rng = self._rng
        self._n_ticks += 1
        now_ms = self._start_ms + self._n_ticks * n * self._step_ms
        at_ms = now_ms - rng.integers(0, 20_000, n)
        at_ms[rng.integers(1, n, N_LATE)] -= 3_600_000
        visits = rng.integers(0, len(self._user), n)
        kinds = rng.choice(len(KINDS), n, p=np.array(list(KINDS.values())))
        items = (rng.random(n) ** 3 * len(self.item_ids)).astype(np.int64)
        draws = rng.integers(0, 1 << 40, n).tolist()
        times = np.datetime_as_string(at_ms.astype("datetime64[ms]")).tolist()
        names = list(KINDS)
        values = [
            self._event(names[kind], visit, item, draw, at)
            for kind, visit, item, draw, at in zip(
                kinds.tolist(), visits.tolist(), items.tolist(), draws, times, strict=True
            )
        ]
        for i, j in rng.integers(0, n, (N_REPEATED, 2)).tolist():
            values[max(i, j)], visits[max(i, j)] = values[min(i, j)], visits[min(i, j)]
        records = self._records(values, visits, at_ms)
        slates = self._publish(np.unique(visits))
        self._open(visits[rng.random(n) < 1 / self.mean_visit].tolist())
        return Batch(Tick(self._n_ticks, (), now_ms), records, slates)

    def _event(self, kind: str, visit: int, item: int, draw: int, at: str) -> str:
        """One event's JSON; clicks and carts mostly follow the visit's last impression."""
        head = (
            f'{{"event_id":"{self._n_ticks:08x}-0000-4000-8000-{draw:012x}","event_type":"{kind}","event_at":"{at}Z",'
            f'{self._user[visit]}"session_id":"{self._session[visit]}"'
        )
        decision, shown = self._decision[visit], self._shown[visit]
        if kind == "impression" and decision:
            self._shown[visit] = shown = shown or self._slates[visit].tolist()
            thing = self._thing
            things = ",".join([f"{thing[k]}{place}}}" for place, k in enumerate(shown)])
            return f'{head},"decision_id":"{decision}","items":[{things}]}}'
        if kind == "search":
            words = (WORDS[draw % 12], WORDS[draw // 12 % 12], WORDS[draw // 144 % 12])
            return f'{head},"query":"{" ".join(words)}"}}'
        if kind in ("click", "view_item", "add_to_cart") and shown and draw % 4:
            place = draw // 4 % 7 * (draw // 28 % 3)
            item, cause = shown[place], f',"decision_id":"{decision}"' if kind == "click" else ""
        else:
            place, cause = 0, ""
        if kind == "purchase" or kind == "refund":
            item -= item % 3 if kind == "refund" else 0
            second = (
                f',{self._thing[item // 2]}1,"price":{self._price[item // 2]},"quantity":2}}' if draw % 3 == 0 else ""
            )
            return (
                f'{head},"order_id":"o-{visit}-{draw % 1000}","currency":"EUR","value":{self._price[item]},'
                f'"items":[{self._thing[item]}0,"price":{self._price[item]},"quantity":1}}{second}]}}'
            )
        stars = ',"rating":5' if kind == "review" else ""
        thing = f'{self._thing[item]}{place},"price":{self._price[item]}}}'
        return f'{head}{cause},"items":[{thing}],"currency":"EUR"{stars}}}'

    def _records(self, values: list[str], visits: Array, at_ms: Array) -> list[Record]:
        out, offsets, n = [], self._offsets, self._n_partitions
        for value, visit, at in zip(values, visits.tolist(), at_ms.tolist(), strict=True):
            partition = visit % n
            out.append(Record(Topic.EVENTS, partition, offsets[partition], at, None, value.encode()))
            offsets[partition] += 1
        return out

    def _publish(self, touched: Array) -> Slates:
        """A slate for every visit touched; anonymous ones have none here."""
        both = self._rng.integers(0, len(self.item_ids), (2, len(touched), N_SLOTS), dtype=np.int32)
        items = np.minimum(*both)
        users, decisions, kept = [], [], []
        for k, (visit, listed) in enumerate(zip(touched.tolist(), items, strict=True)):
            if self._user[visit]:
                users.append(self._user[visit][11:-2])
                decisions.append(f"{self._n_ticks:08x}{visit:08x}")
                kept.append(k)
                if not self._shown[visit]:
                    self._decision[visit], self._slates[visit] = decisions[-1], listed
        return Slates(users, decisions, items[kept])

    def _open(self, visits: list[int]) -> None:
        """Begin a new visit in each place."""
        if not self._n_visits:
            self._slates = [np.empty(0, np.int32) for _ in visits]
        users = (self._rng.random(len(visits)) * self._n_users).astype(np.int64).tolist()
        for visit, user in zip(visits, users, strict=True):
            self._n_visits += 1
            real = self._n_visits % self.anonymous_one_in
            self._user[visit] = f'"user_id":"customer-{user:07d}",' if real else ""
            self._session[visit] = f"s-{self._n_visits:010x}"
            self._decision[visit], self._shown[visit] = "", []


def publish(facts: Facts, rows: dict[str, int], slates: Slates, items: Array, at_ms: int) -> None:
    """Tell the joiner of the slates, as the pipeline does after a tick.

    Args:
        facts: whose joiner.
        rows: raw user id to user row; others are left out.
        slates: of `Traffic`.
        items: item row of each place in `Traffic.item_ids`.
        at_ms: event time of publishing.
    """
    known = [k for k, user in enumerate(slates.users) if user in rows]
    users = [rows[slates.users[k]] for k in known]
    facts.joiner.publish_many(
        users,
        facts.users.born[users].tolist(),
        [slates.decisions[k] for k in known],
        at_ms=at_ms,
        items=items[slates.items[known]].astype(np.int32),
    )


def rows_of(taken: Taken, batch: Batch) -> dict[str, int]:
    """Raw user id to user row, for the users of a tick's accepted lines."""
    values = [record.value or b"" for record in batch.records]
    mark, out = b'"user_id":"', {}
    for line, row in zip(taken.lines.source, taken.lines.user.tolist(), strict=True):
        value = values[line.record]
        at = value.find(mark)
        if at >= 0 and row != MISSING:
            start = at + len(mark)
            out[value[start : value.index(b'"', start)].decode()] = row
    return out
