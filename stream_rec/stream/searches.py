"""A tick's searches, and what was taken because of them.

A search opens a query of its user until the next one or the end of the window; what the user takes meanwhile (clicks,
looks at, puts in the cart, buys) is a pair with it, once. An event that names its query is a pair with that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream_rec.events import MISSING, Kind
from stream_rec.stream.queries import Queries, normal
from stream_rec.stream.searchers import Searchers, Who
from stream_rec.stream.users import Users

Array = np.ndarray[Any, np.dtype[Any]]
OWN_SLATE = 1
"""Stand-ins up to this one have slates of their own: users and sessions."""


@dataclass(frozen=True, slots=True)
class Searched:
    """What one tick brought."""

    user: Array
    """int32 [S] row of each user and query that was searched for, each pair once, by first sight; MISSING: nobody."""
    query: Array
    """int32 [S]."""
    line: Array
    """int64 [P]: the positive of each pair, by its place in the tick's lines."""
    pair: Array
    """int32 [P]: query of each pair."""


class Searches:
    """Folds the lines of a tick.

    Args:
        queries: the table of queries.
        searchers: the users with a search.
        window_ms: event time after a search in which it may be why something was taken.
    """

    def __init__(
        self, queries: Queries | None = None, searchers: Searchers | None = None, window_ms: int = 1_800_000
    ) -> None:
        self.queries, self.searchers, self.window_ms = queries or Queries(), searchers or Searchers(), window_ms

    def read(self, lines: Any, users: Users, evicted_items: Sequence[int]) -> Searched:
        """Fold one tick; `lines` are `intake.Lines`."""
        if evicted_items:
            self.searchers.forget_items(evicted_items)
        asked: dict[tuple[int, int, int], None] = {}
        pairs: list[tuple[int, int, int]] = []
        interesting = (lines.kind == Kind.SEARCH) | (lines.positive & (lines.user != MISSING))
        kinds, before = lines.kind.tolist(), MISSING
        for i in np.flatnonzero(interesting).tolist():
            line = lines.source[i]
            if kinds[i] != Kind.SEARCH:
                if (query := self._led_by(lines, i, users)) is not None:
                    pairs.append((i, *query))
            elif line.event != before and (text := normal(line.query)):
                asked[self._search(lines, i, text, users)] = None
                before = line.event
        return self._searched(list(asked), pairs)

    def forget_users(self, rows: Sequence[int], keys: Sequence[bytes]) -> None:
        """Take users out; MISSING for a row that is not known."""
        self.searchers.forget_users([row for row in rows if row != MISSING])
        self.queries.forget_users([_asker(key) for key in keys])

    def _search(self, lines: Any, i: int, text: str, users: Users) -> tuple[int, int, int]:
        user, line = int(lines.user[i]), lines.source[i]
        query = self.queries.ask(text, _asker(line.user) if line.stand_in <= OWN_SLATE and line.user else 0)
        born = int(self.queries.born[query])
        if user == MISSING or line.stand_in > OWN_SLATE:
            return MISSING, query, born
        who = Who(user, int(users.born[user]), line.user)
        self.searchers.search(who, query, born, int(lines.at_ms[i]))
        return user, query, born

    def _led_by(self, lines: Any, i: int, users: Users) -> tuple[int, int] | None:
        """Query and its birth that led to a positive line."""
        line, user, item = lines.source[i], int(lines.user[i]), int(lines.item[i])
        if line.query and (text := normal(line.query)):
            query = self.queries.ask(text, _asker(line.user) if line.stand_in <= OWN_SLATE else 0)
            return query, int(self.queries.born[query])
        at_ms, of = int(lines.at_ms[i]), int(users.born[user])
        query, born = self.searchers.take(user, of, item, at_ms=at_ms, window_ms=self.window_ms)
        return None if query == MISSING else (query, born)

    def _searched(self, asked: list[tuple[int, int, int]], pairs: list[tuple[int, int, int]]) -> Searched:
        """Leave out queries that made room within the tick."""
        user, query, born = np.array(asked, np.int64).reshape(-1, 3).T
        line, pair, pair_born = np.array(pairs, np.int64).reshape(-1, 3).T
        kept, led = self.queries.current(query, born), self.queries.current(pair, pair_born)
        return Searched(
            user[kept].astype(np.int32),
            query[kept].astype(np.int32),
            line[led],
            pair[led].astype(np.int32),
        )


def _asker(key: bytes) -> int:
    return int.from_bytes(key[:8], "little")
