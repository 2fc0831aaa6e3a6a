"""What events say of decisions: which were shown to whom, and what came of each shown item by name.

A decision counts only through an `impression` that names it; its list is the impression's, and the wait starts there.
What is joined by less than a decision id is counted and left out. A purchase that names no decision counts for an item
that the same user clicked or put into the cart by name: then it is that action which names the decision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from stream_rec.events import Kind, Line
from stream_rec.stream.exposures import BOUGHT, CARTED, CLICKED
from stream_rec.stream.joins import KIND_WINDOWS

NO_DECISION = "impressions that name no decision"
IMPLIED = "actions on a decision of which no impression is known"
NOT_SHOWN = "actions on an item that the impression did not show"
OUTSIDE = "actions outside their attribution window"
WEAK = "actions on a shown item that name no decision"
REFUNDED = "purchases taken back"
OPEN = "impressions whose click window was still open at the end of the events"


@dataclass(slots=True)
class Exposure:
    """One decision as one user saw it."""

    decision: str
    user: bytes
    """Empty when nobody is named."""
    at_ms: int
    """First impression."""
    items: dict[str, int] = field(default_factory=dict)
    """Item to when it was first shown, ms."""
    labels: dict[str, int] = field(default_factory=dict)
    """Item to CLICKED, CARTED and BOUGHT bits."""


class _Act(NamedTuple):
    user: bytes
    item: str
    at_ms: int
    order: int
    window_ms: int
    bit: int


class ShownLists:
    """Collects lines of events, in any order, and joins them when all are in.

    Args:
        windows_ms: wait for `click`, `cart` and `purchase`.
        disorder_ms: an action may be stamped so much before the impression that led to it.
    """

    def __init__(self, windows_ms: Mapping[str, int], disorder_ms: int = 0) -> None:
        self._windows_ms, self._disorder_ms = windows_ms, disorder_ms
        self._exposures: dict[tuple[str, bytes], Exposure] = {}
        self._of_decision: dict[str, list[Exposure]] = {}
        self._acts: list[tuple[str, _Act]] = []
        self._refunds: set[tuple[int, str]] = set()
        self._seen: set[int] = set()
        self._end_ms = 0
        self.counts: Counter[str] = Counter()
        """What was left out, by reason."""

    def add(self, lines: Iterable[Line]) -> None:
        """Take lines; those of one event stand together. An event that came before is left out."""
        for (_, digest), group in groupby(lines, key=attrgetter("record", "event")):
            if digest not in self._seen:
                self._seen.add(digest)
                self._event(list(group))

    def joined(self) -> list[Exposure]:
        """Exposures whose click window had closed when the events ended, by time of their first impression."""
        acts = [(decision, act) for decision, act in self._acts if not self._taken_back(act)]
        for decision, act in acts:
            if decision:
                self._name(decision, act)
        of_user = self._of_users()
        for decision, act in acts:
            if not decision and act.user:
                self._unnamed(of_user.get((act.user, act.item), ()), act)
        closed_ms = self._end_ms - self._windows_ms["click"]
        whole = [e for e in self._exposures.values() if e.at_ms <= closed_ms]
        if n_open := len(self._exposures) - len(whole):
            self.counts[OPEN] += n_open
        return sorted(whole, key=lambda e: (e.at_ms, e.decision, e.user))

    # ---- one event

    def _event(self, lines: list[Line]) -> None:
        first = lines[0]
        user = first.user or b""
        self._end_ms = max(self._end_ms, first.at_ms)
        kind = Kind(first.kind)
        if kind == Kind.IMPRESSION:
            self._impression(lines, user)
        elif kind == Kind.REFUND:
            self._refunds.update((line.order, line.item_id) for line in lines if line.order)
        elif kind in KIND_WINDOWS:
            name, bit = KIND_WINDOWS[kind]
            for line in lines:
                act = _Act(user, line.item_id, line.at_ms, line.order, self._windows_ms[name], bit)
                self._acts.append((line.decision_id, act))

    def _impression(self, lines: list[Line], user: bytes) -> None:
        first = lines[0]
        if not first.decision_id:
            self.counts[NO_DECISION] += 1
            return
        key = first.decision_id, user
        if key not in self._exposures:
            shown = Exposure(first.decision_id, user, first.at_ms)
            self._exposures[key] = shown
            self._of_decision.setdefault(first.decision_id, []).append(shown)
        shown = self._exposures[key]
        shown.at_ms = min(shown.at_ms, first.at_ms)
        for line in lines:
            shown.items[line.item_id] = min(line.at_ms, shown.items.get(line.item_id, line.at_ms))

    # ---- joins

    def _name(self, decision: str, act: _Act) -> None:
        shown = self._exposures.get((decision, act.user))
        if shown is None:
            those = self._of_decision.get(decision, ())
            shown = those[0] if len(those) == 1 else None
        if shown is None:
            self.counts[IMPLIED] += 1
        elif act.item not in shown.items:
            self.counts[NOT_SHOWN] += 1
        elif not self._in_window(shown, act):
            self.counts[OUTSIDE] += 1
        else:
            shown.labels[act.item] = shown.labels.get(act.item, 0) | act.bit

    def _unnamed(self, those: Iterable[Exposure], act: _Act) -> None:
        """`those` showed the item to the user; the newest in whose window the action lies is meant."""
        within = [shown for shown in those if self._in_window(shown, act)]
        if not within:
            return
        shown = max(within, key=lambda e: e.items[act.item])
        followed = shown.labels.get(act.item, 0) & (CLICKED | CARTED)
        if act.bit == BOUGHT and followed:
            shown.labels[act.item] |= BOUGHT
        else:
            self.counts[WEAK] += 1

    def _in_window(self, shown: Exposure, act: _Act) -> bool:
        return -self._disorder_ms <= act.at_ms - shown.items[act.item] <= act.window_ms

    def _taken_back(self, act: _Act) -> bool:
        back = act.bit == BOUGHT and (act.order, act.item) in self._refunds
        self.counts[REFUNDED] += back
        return back

    def _of_users(self) -> dict[tuple[bytes, str], list[Exposure]]:
        out: dict[tuple[bytes, str], list[Exposure]] = {}
        for shown in self._exposures.values():
            if shown.user:
                for item in shown.items:
                    out.setdefault((shown.user, item), []).append(shown)
        return out
