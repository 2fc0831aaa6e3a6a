"""Which slates a tick publishes, and the records that say them: for whom, when, and what each one names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from stream_rec.component import Component
from stream_rec.events import MISSING, Output, Topic
from stream_rec.explore.slate import slate_seeds
from stream_rec.learn.exploration import CONTROL, OFF, SAFE, SHADOW, Drawn, with_trials
from stream_rec.learn.learner import Learner
from stream_rec.learn.scoring import (
    BOUGHT_BEFORE,
    BOUGHT_TOGETHER,
    IN_THIS_VISIT,
    MATCHES,
    POPULAR,
    TAKEN_FOR_IT,
    TRIED,
    Catalogue,
    Ranked,
)
from stream_rec.stream.decisions import Said
from stream_rec.stream.intake import Facts
from stream_rec.stream.tick import Tick
from stream_rec.stream.users import stable
from stream_rec.stream.watermark import BEFORE_TIME

EVERYBODY = "*"
POLICY_VERSION = 2
RANKED = "greedy"
"""The policy of slates that nothing was drawn for: the best by the joint logit, in its order."""
SURE = {"deterministic": True, "explored": False}
"""What a slot says that was not drawn."""
Array = np.ndarray[Any, np.dtype[Any]]

REASONS = {
    BOUGHT_BEFORE: "bought before",
    BOUGHT_TOGETHER: "bought together",
    IN_THIS_VISIT: "goes with this visit",
    POPULAR: "popular this week",
    MATCHES: "matches the query",
    TAKEN_FOR_IT: "taken for this query",
    TRIED: "tried out",
}
WORDS = [[word for bit, word in REASONS.items() if bits & bit] for bits in range(1 << len(REASONS))]
"""Words of a slot's reasons, by their bits."""


@dataclass(frozen=True, slots=True)
class SlateRules:
    """Settings of the slates; times in ms of the tick's clock."""

    seed: int = 0
    key_id: str = ""
    n_slots: int = 20
    refresh_users: int = 256
    """A tick, at most."""
    refresh_per_s: int = 256
    """Users refreshed in turn, a second of the tick's clock."""
    valid_ms: int = 7 * 86_400_000
    star_every_ms: int = 3_600_000
    visit_gap_ms: int = 1_800_000


class Refresh(Component):
    """What is still to be refreshed: users whose slate shows a lost item, when `*` was last made, whose turn it is."""

    columns = ("queue",)
    scalars = ("n_queued", "star_at_ms", "turned_at_ms")
    fixed = ("capacity",)

    def __init__(self, capacity: int = 200_000) -> None:
        self.capacity = capacity
        self.queue = np.zeros(capacity, np.int32)
        self.n_queued = 0
        self.star_at_ms = MISSING
        self.turned_at_ms = MISSING
        """Until when turns have been given."""

    def used(self) -> int:
        """Rows of the queue in use."""
        return self.n_queued

    def add(self, users: Array) -> None:
        """Queue user rows; beyond the capacity they wait for their round-robin turn instead."""
        fresh = users[~np.isin(users, self.queue[: self.n_queued])][: self.capacity - self.n_queued]
        self.queue[self.n_queued : self.n_queued + len(fresh)] = fresh
        self.n_queued += len(fresh)

    def forget(self, users: Sequence[int]) -> None:
        """Take user rows that hold nobody any more out of the queue."""
        queued = self.queue[: self.n_queued]
        left = queued[~np.isin(queued, np.asarray(users, np.int32))]
        self.queue[: len(left)] = left
        self.queue[len(left) : self.n_queued] = 0
        self.n_queued = len(left)

    def settle(self, now_ms: int) -> None:
        """Nothing can be shown: nothing is owed until there is."""
        self.take(self.n_queued)
        self.star_at_ms = now_ms if self.star_at_ms != MISSING else MISSING

    def turn(self, now_ms: int, *, per_s: int, at_most: int) -> int:
        """How many users are refreshed in turn now: as many as the time since the last turn gives."""
        given = max(0, (now_ms - self.turned_at_ms) * per_s // 1000)
        if self.turned_at_ms == MISSING or given >= at_most:
            self.turned_at_ms = now_ms
            return at_most
        self.turned_at_ms += given * 1000 // per_s
        return given

    def take(self, n: int) -> Array:
        """The `n` users queued first."""
        taken = self.queue[: min(n, self.n_queued)].copy()
        left = self.n_queued - len(taken)
        self.queue[:left] = self.queue[len(taken) : self.n_queued]
        self.queue[left : self.n_queued] = 0
        self.n_queued = left
        return taken


class SlateStage:
    """Publishes one slate a key and tick: `*`, then touched users, users with a lost item, then round-robin.

    Nothing is published before the first event: there is no time yet that a slate could be of.
    """

    def __init__(self, facts: Facts, learner: Learner, rules: SlateRules) -> None:
        self._users, self._items, self._joiner = facts.users, facts.items, facts.joiner
        self._histories, self._learner, self.rules = facts.histories, learner, rules
        self.refresh = Refresh()

    def publish(
        self, tick: Tick, touched: Array, unservable: Sequence[int], *, promoted: bool, watermark_ms: int
    ) -> list[Output]:
        """Slates of one tick, in the order they are decided.

        Args:
            tick: gives number and time.
            touched: user rows int32 seen in this tick, each once.
            unservable: item rows that were lost in this tick.
            promoted: a new champion took over in this tick.
            watermark_ms: named in every slate.
        """
        if watermark_ms == BEFORE_TIME:
            return []
        servable = self._items.servable()
        if not servable.any():
            self.refresh.settle(tick.cut_at_ms)
            return []
        if unservable:
            self.refresh.add(self._joiner.holding(np.array(unservable, np.int32)))
        frame = self.frame(tick, servable, watermark_ms)
        catalogue = Catalogue(self._items.n, servable, self._items.born[: self._items.n])
        out = []
        if promoted or self._star_due(tick.cut_at_ms) or self._star_lost(tick.cut_at_ms, servable):
            self.refresh.star_at_ms = tick.cut_at_ms
            ranked = self._learner.star(
                self._histories, now_ms=tick.cut_at_ms, catalogue=catalogue, k=self.rules.n_slots
            )
            out += self._encode(frame, [MISSING], ranked, ["everybody"])
        per_s = self.rules.refresh_per_s // (4 if tick.lagging else 1) if tick.ranges else 0
        parts = self._rows(touched, tick.cut_at_ms, per_s=per_s)
        return out + self._personal(frame, [part for part in parts if len(part[1])], catalogue)

    def _personal(
        self, frame: dict[str, Any], parts: Sequence[tuple[str, Array]], catalogue: Catalogue
    ) -> list[Output]:
        """Slates of users, by cause; all causes are ranked and drawn at once, which costs less."""
        if not parts:
            return []
        rows = np.concatenate([rows for _, rows in parts])
        causes = np.repeat([cause for cause, _ in parts], [len(rows) for _, rows in parts])
        out = []
        for arm, some in self._learner.exploration.arms(stable(self._users.key[rows])):
            if some.any():
                said = frame if arm is None else frame | {"arm": arm}
                out += self._of_arm(said, rows[some], causes[some].tolist(), catalogue)
        return out

    def _of_arm(self, frame: dict[str, Any], rows: Array, causes: list[str], catalogue: Catalogue) -> list[Output]:
        """Slates of users: drawn, or ranked and in shadow some of them drawn beside that."""
        exploration, number = self._learner.exploration, frame["statistics_tick"]
        mode = exploration.mode(braking=self._learner.oversight.braking)
        if frame.get("arm") != CONTROL and mode not in (OFF, SHADOW):
            candidates, seeds, vectors = self._candidates(frame, rows, causes, catalogue)
            shown, drawn = exploration.draw(candidates, seeds, safe=mode == SAFE, vectors=vectors)
            said = frame | {"policy": exploration.plan.draws.policy, "budget": exploration.plan.draws.budget}
            return self._encode(said, rows.tolist(), shown, causes, drawn)
        if frame.get("arm") != CONTROL and mode == SHADOW and (n := exploration.n_tried(number)):
            candidates, seeds, vectors = self._candidates(frame, rows[:n], causes[:n], catalogue)
            exploration.try_out(candidates, seeds, vectors=vectors)
        ranked = self._rank(rows, frame["event_at"], catalogue, self.rules.n_slots)
        return self._encode(frame, rows.tolist(), ranked, causes)

    def _candidates(
        self, frame: dict[str, Any], rows: Array, causes: list[str], catalogue: Catalogue
    ) -> tuple[Ranked, Array, Array | None]:
        """What users' slates are drawn from, the seeds of the draws, and vectors of the items."""
        number, exploration, tower = frame["statistics_tick"], self._learner.exploration, self._learner.tower
        wide = with_trials(catalogue, exploration.trial_items(catalogue, number))
        width = max(self.rules.n_slots, exploration.plan.n_candidates)
        seeds = slate_seeds(self.rules.seed, number, self._keys(rows.tolist()), causes)
        candidates = self._rank(rows, frame["event_at"], wide, width)
        return candidates, seeds, None if tower is None else tower.vectors("champion")

    def _rank(self, rows: Array, now_ms: int, catalogue: Catalogue, k: int) -> Ranked:
        users = self._users
        is_open = now_ms - users.visit_last_ms[rows] <= self.rules.visit_gap_ms
        visit = np.where(is_open, users.visit_serial[rows], MISSING)
        return self._learner.rank(users.last_row[rows], visit, self._histories, now_ms=now_ms, catalogue=catalogue, k=k)

    def due(self, now_ms: int) -> bool:
        """Whether a tick without records would publish something that is owed."""
        return self.refresh.n_queued > 0 or (self.refresh.star_at_ms != MISSING and self._star_due(now_ms))

    def _star_due(self, now_ms: int) -> bool:
        made_at_ms = self.refresh.star_at_ms
        return made_at_ms == MISSING or now_ms - made_at_ms >= self.rules.star_every_ms

    def _star_lost(self, now_ms: int, servable: Array) -> bool:
        """Whether the slate for everybody shows an item that can no longer be shown."""
        shown = self._joiner.in_force(MISSING, MISSING, now_ms + 1)
        return shown is not None and not servable[shown[shown != MISSING]].all()

    def _rows(self, touched: Array, now_ms: int, *, per_s: int) -> Iterable[tuple[str, Array]]:
        """Users by cause; `per_s` of them a second in turn.

        A tick without records is a sign of life or pays what is owed: it has no round-robin.
        """
        quota = self.rules.refresh_users
        lost = _new(self.refresh.take(quota), touched)
        lost = lost[self._users.born[lost] != 0]
        n = self.refresh.turn(now_ms, per_s=per_s, at_most=quota - len(lost)) if per_s else 0
        known = self._users.next_known(n)
        turn = _new(known, np.concatenate([touched, lost]))
        return ("touched", touched), ("item_lost", lost), ("refresh", turn)

    # ---- records

    def frame(self, tick: Tick, servable: Array, watermark_ms: int) -> dict[str, Any]:
        """What all slates of a tick say alike."""
        rules = self.rules
        return {
            "event_at": tick.cut_at_ms,
            "valid_until": tick.cut_at_ms + rules.valid_ms,
            "watermark": watermark_ms,
            "key_id": rules.key_id,
            "model_version": self._learner.versions.champion_version,
            "statistics_tick": tick.number,
            "policy": RANKED,
            "policy_version": POLICY_VERSION,
            "candidates": {
                "n": int(servable.sum()),
                "sources": ["catalogue"],
                "digest": hashlib.sha256(np.packbits(servable).tobytes()).hexdigest()[:16],
            },
            "budget": None,
        }

    def _keys(self, rows: Sequence[int]) -> list[str]:
        return [EVERYBODY if row == MISSING else self._users.key[row].tobytes().hex() for row in rows]

    def _encode(
        self,
        frame: dict[str, Any],
        rows: Sequence[int],
        ranked: Ranked,
        causes: Sequence[str],
        drawn: Drawn | None = None,
    ) -> list[Output]:
        ids, encode = self._items.ids, msgspec.json.encode
        tick, out = frame["statistics_tick"], []
        keys = self._keys(rows)
        decisions = [decision_id(self.rules.seed, tick, key, cause) for key, cause in zip(keys, causes, strict=True)]
        born = [MISSING if row == MISSING else int(self._users.born[row]) for row in rows]
        said = Said(ranked.scored, None if drawn is None else drawn.code)
        self._joiner.publish_many(rows, born, decisions, at_ms=frame["event_at"], items=ranked.items, said=said)
        utility = self._learner.impressions.worth(ranked.scored).round(6).tolist()
        for b, shown in enumerate(slots_of(ids, ranked, utility, drawn)):
            key = keys[b]
            slate = {"user_key": key, "decision_id": decisions[b], "cause": causes[b], **frame, "slots": shown}
            if drawn is not None:
                slate["candidates"] = frame["candidates"] | {"admitted": int(drawn.n_admitted[b])}
            out.append(Output(Topic.SLATES, key.encode(), encode(slate)))
        return out


def decision_id(seed: int, tick: int, key: str, cause: str) -> str:
    """Decision id, a function of (run seed, tick, slate key, cause) alone."""
    return hashlib.blake2b(f"{seed}|{tick}|{key}|{cause}".encode(), digest_size=12).hexdigest()


def slots_of(
    ids: Sequence[str],
    ranked: Ranked,
    utility: Sequence[Sequence[float]] | None = None,
    drawn: Drawn | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """What the slots of each slate say.

    Args:
        ids: of the item rows.
        ranked: the slates.
        utility: expected of an impression of each slot; None: not known.
        drawn: how they were chosen; None: nothing was drawn.
    """
    told = ranked.reasons if drawn is None else np.where(drawn.explored, ranked.reasons | TRIED, ranked.reasons)
    reasons, scores = told.tolist(), ranked.scores.astype(np.float64).round(6).tolist()
    for b, items in enumerate(ranked.items.tolist()):
        yield [
            {
                "item_id": ids[item],
                "position": k,
                "score": scores[b][k],
                "utility": None if utility is None else utility[b][k],
                **(SURE if drawn is None or drawn.deterministic[b, k] else _chance(drawn, b, k)),
                "reasons": WORDS[reasons[b][k]],
            }
            for k, item in enumerate(items)
            if item != MISSING
        ]


def _chance(drawn: Drawn, b: int, k: int) -> dict[str, Any]:
    """What a drawn slot says of its draw."""
    propensity, explored = float(drawn.propensity[b, k]), bool(drawn.explored[b, k])
    return {"propensity": propensity, "deterministic": False, "explored": explored}


def _new(rows: Array, seen: Array) -> Array:
    return rows[~np.isin(rows, seen)]
