"""Every consumed record ends as exactly one of five words, with a reason; and when too many die, the worker stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from stream_rec.component import Component
from stream_rec.errors import InputRefused

OUTCOMES = ("accepted", "duplicate", "late", "dead_lettered", "ignored")
PLAIN = "plain"
"""The reason of a record of which there is nothing to say."""
RECENT = 1000
AT_LEAST = 200
N_WORDS = 3
"""Reasons named when the worker stops."""


class Accounting(Component):
    """Counts by outcome and reason since the first record; law 4 holds after every tick.

    `repaired` is a sub-count of accepted. `share` is the part of an input topic's last 1,000 records (at least 200)
    that may die before the worker stops; 1.0 never stops.
    """

    columns = ("recent", "place", "why")
    scalars = ("totals", "reasons", "notes", "topics", "n_recent", "words")
    fixed = ("share",)

    def __init__(self, *, share: float = 0.5, max_topics: int = 8) -> None:
        self.share = share
        self.recent = np.zeros((max_topics, RECENT), np.bool_)
        """Which of a topic's newest records died, a ring."""
        self.place = np.zeros((max_topics, RECENT, 2), np.int64)
        """Partition and offset of those."""
        self.why = np.zeros((max_topics, RECENT), np.int16)
        """Their reasons, by place in `words`."""
        self.words: list[str] = []
        self.topics: list[str] = []
        self.n_recent: list[int] = []
        self.totals: dict[str, int] = dict.fromkeys(("consumed", *OUTCOMES, "repaired"), 0)
        self.reasons: dict[str, dict[str, int]] = {outcome: {} for outcome in (*OUTCOMES, "repaired")}
        self.notes: dict[str, int] = {}

    def count(self, verdicts: Counter[tuple[str, str]], repairs: Mapping[str, int], n_repaired: int) -> None:
        """Add one tick: (outcome, reason) to number of records, repair word to number, and repaired records."""
        for (outcome, reason), n in sorted(verdicts.items()):
            self.totals["consumed"] += n
            self.totals[outcome] += n
            table, word = self.reasons[outcome], reason or PLAIN
            table[word] = table.get(word, 0) + n
        self.totals["repaired"] += n_repaired
        for word, n in sorted(repairs.items()):
            self.reasons["repaired"][word] = self.reasons["repaired"].get(word, 0) + n

    def note(self, word: str, n: int = 1) -> None:
        """Count something that is no outcome: unknown fields, joins, unmatched refunds."""
        if n:
            self.notes[word] = self.notes.get(word, 0) + n

    def watch(self, topic: str, places: Sequence[tuple[int, int]], reasons: Sequence[str]) -> None:
        """Remember which of a topic's newest records died.

        Args:
            topic: input topic.
            places: (partition, offset) of its records of a tick, in order.
            reasons: why each died, "" for those that did not.

        Raises:
            InputRefused: more than `share` of the last 1,000 (at least 200) died. Nothing of this tick is committed.
        """
        if topic not in self.topics:
            self.topics.append(topic)
            self.n_recent.append(0)
        at = self.topics.index(topic)
        for start in range(0, len(reasons), RECENT):
            self._remember(at, places[start : start + RECENT], reasons[start : start + RECENT])
            known, n_died = min(self.n_recent[at], RECENT), int(self.recent[at].sum())
            if known >= AT_LEAST and n_died > self.share * known:
                raise InputRefused(
                    f"{n_died} of the last {known} records of topic '{topic}' cannot be used, {self._burst(at)}; mend "
                    "the producer or set `events.format` to what it sends, or go on regardless with "
                    "--set quality.dead_letter_share=1"
                )

    def _remember(self, at: int, places: Sequence[tuple[int, int]], reasons: Sequence[str]) -> None:
        slots = (self.n_recent[at] + np.arange(len(reasons))) % RECENT
        self.n_recent[at] += len(reasons)
        self.recent[at, slots], self.place[at, slots], self.why[at, slots] = False, 0, 0
        for i in [i for i, reason in enumerate(reasons) if reason]:
            if reasons[i] not in self.words:
                self.words.append(reasons[i])
            slot = slots[i]
            self.recent[at, slot], self.place[at, slot] = True, places[i]
            self.why[at, slot] = self.words.index(reasons[i])

    def _burst(self, at: int) -> str:
        """Where the deaths among a topic's newest records begin, and of what most of them died."""
        n = self.n_recent[at]
        slots = np.arange(max(0, n - RECENT), n) % RECENT
        slots = slots[self.recent[at, slots]]
        partition, offset = self.place[at, slots[0]].tolist()
        said = Counter(self.words[why] for why in self.why[at, slots].tolist()).most_common(N_WORDS)
        words = ", ".join(f"{word} {n_died}" for word, n_died in said)
        return f"the first at {self.topics[at]}/{partition} offset {offset} ({words})"

    def table(self) -> dict[str, object]:
        """The counts as `summary.json` gives them."""
        reasons = {outcome: dict(sorted(table.items())) for outcome, table in self.reasons.items()}
        return {**self.totals, "reasons": reasons, "notes": dict(sorted(self.notes.items()))}
