"""Every consumed record ends as exactly one of five words, with a reason; and when too many die, the worker stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from stream_rec.component import Component
from stream_rec.errors import InputRefused

OUTCOMES = ("accepted", "duplicate", "late", "dead_lettered", "ignored")
RECENT = 1000
AT_LEAST = 200


class Accounting(Component):
    """Counts by outcome and reason since the first record; law 4 holds after every tick.

    `repaired` is a sub-count of accepted. `share` is the part of an input topic's last 1,000 records (at least 200)
    that may die before the worker stops; 1.0 never stops.
    """

    columns = ("recent",)
    scalars = ("totals", "reasons", "notes", "topics", "n_recent", "first_bad")
    fixed = ("share",)

    def __init__(self, *, share: float = 0.5, max_topics: int = 8) -> None:
        self.share = share
        self.recent = np.zeros((max_topics, RECENT), np.bool_)
        self.topics: list[str] = []
        self.n_recent: list[int] = []
        self.first_bad: list[str] = []
        self.totals: dict[str, int] = dict.fromkeys(("consumed", *OUTCOMES, "repaired"), 0)
        self.reasons: dict[str, dict[str, int]] = {outcome: {} for outcome in (*OUTCOMES, "repaired")}
        self.notes: dict[str, int] = {}

    def count(self, verdicts: Counter[tuple[str, str]], repairs: Mapping[str, int], n_repaired: int) -> None:
        """Add one tick: (outcome, reason) to number of records, repair word to number, and repaired records."""
        for (outcome, reason), n in sorted(verdicts.items()):
            self.totals["consumed"] += n
            self.totals[outcome] += n
            if reason:
                table = self.reasons[outcome]
                table[reason] = table.get(reason, 0) + n
        self.totals["repaired"] += n_repaired
        for word, n in sorted(repairs.items()):
            self.reasons["repaired"][word] = self.reasons["repaired"].get(word, 0) + n

    def note(self, word: str, n: int = 1) -> None:
        """Count something that is no outcome: unknown fields, joins, unmatched refunds."""
        if n:
            self.notes[word] = self.notes.get(word, 0) + n

    def watch(self, topic: str, died: np.ndarray, first_position: str) -> None:
        """Remember which of a topic's newest records died; `died` bool[N] in order.

        Raises:
            InputRefused: more than `share` of the last 1,000 (at least 200) died. Nothing of this tick is committed.
        """
        if topic not in self.topics:
            self.topics.append(topic)
            self.n_recent.append(0)
            self.first_bad.append("")
        at = self.topics.index(topic)
        if first_position and not self.first_bad[at]:
            self.first_bad[at] = first_position
        for block in np.array_split(died, max(1, -(-len(died) // RECENT))):
            slots = (self.n_recent[at] + np.arange(len(block))) % RECENT
            self.recent[at, slots] = block
            self.n_recent[at] += len(block)
            known = min(self.n_recent[at], RECENT)
            n_died = int(self.recent[at].sum())
            if known >= AT_LEAST and n_died > self.share * known:
                raise InputRefused(
                    f"{n_died} of the last {known} records of topic '{topic}' cannot be used, "
                    f"the first at {self.first_bad[at]}; look at them with "
                    "`stream-rec dead-letters list`, mend the producer or `events.format`, "
                    "or go on regardless with --set quality.dead_letter_share=1"
                )

    def table(self) -> dict[str, object]:
        """The counts as `summary.json` gives them."""
        reasons = {outcome: dict(sorted(table.items())) for outcome, table in self.reasons.items()}
        return {**self.totals, "reasons": reasons, "notes": dict(sorted(self.notes.items()))}
