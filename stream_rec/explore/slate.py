"""Slates drawn slot by slot, without replacement, many at once, each slot with its propensity given the prefix.

A slot's value is utility plus diversity gain; the policy turns values into probabilities; the draw is a keyed hash, so
it is the same whenever and beside whatever it is made. Diversity acts inside the step: nothing is re-ranked after
drawing, so the propensity of a slate is the product of those of its slots.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_rec.errors import SettingsError
from stream_rec.events import MISSING
from stream_rec.explore.chances import coded
from stream_rec.explore.diversity import KINDS, Cosines, Diversity
from stream_rec.explore.policy import TRIAL_SHARE, Known, Slot, policy_of
from stream_rec.explore.single import BARRED, Chance, Filling, Gains
from stream_rec.stream.sampling import hash01, hash64

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
I32 = NDArray[np.int32]
Rows = NDArray[np.intp]
U64 = NDArray[np.uint64]

ALONGSIDE = 8
"""Up to so many slates the greedy ones are filled in the same steps; of more, only those that differ."""
NARROWEST = 1e-12
"""Smallest spread in drawn worlds, so that equals win equally often."""


@dataclass(frozen=True, slots=True)
class DrawRules:
    """Settings of drawing.

    Raises:
        SettingsError: one of them is out of its range.
    """

    seed: int = 0
    n_slots: int = 20
    policy: str = "igw"
    budget: float = 0.02
    diversity: str = "dpp"
    strength: float = 0.3
    max_explored: int = 4
    """Explored slots of a slate; after these its slots are deterministic."""
    first_explorable: int = 1
    """Slots before it are deterministic."""

    def __post_init__(self) -> None:
        policy_of(self.policy)
        if not 0.0 < self.budget <= 1.0:
            raise SettingsError(
                "explore.exploration_budget must lie in (0, 1]; for no exploration set explore.policy=greedy"
            )
        if self.diversity not in KINDS or not 0.0 <= self.strength <= 1.0:
            raise SettingsError(f"explore.diversity must be one of {', '.join(KINDS)}, its strength in [0, 1]")
        if self.n_slots < 1 or self.max_explored < 0 or self.first_explorable < 0:
            raise SettingsError("explore: wanted n_slots >= 1, max_explored >= 0, first_explorable >= 0")


@dataclass(frozen=True, slots=True)
class Offer:
    """The admitted candidates of B slates, M each, in the order of the joint score (of equals the first is greedy)."""

    utility: Doubles
    """float64 [B, M], in [0, 1]."""
    allowed: Bools
    """bool [B, M]: not blocked, in stock, within the price limits, and there at all."""
    seeds: U64
    """uint64 [B], from `slate_seeds`."""
    spread: Doubles | None = None
    """float64 [B, M]; wanted by `thompson`."""
    vectors: NDArray[Any] | None = None
    """float [B, M, D], for diversity; None: nothing is alike."""
    trial: Bools | None = None
    """bool [B, M]: items that have not had their trial impressions."""
    pinned: I32 | None = None
    """int32 [B, n_slots]: the candidate that a slot must show, MISSING for none."""


@dataclass(frozen=True, slots=True)
class Slates:
    """B drawn slates of k slots; arrays [B, k] in the order of the slots. Slots without a candidate hold MISSING."""

    column: I32
    """Which candidate."""
    propensity: Doubles
    """Probability of this candidate given the slots before; 1 where deterministic."""
    known: NDArray[np.uint8]
    """`Known`, how the propensity is known."""
    explored: Bools
    """A candidate below the best was drawn."""
    value: Doubles
    """Utility plus diversity gain of the candidate shown."""
    best: Doubles
    """Of the best candidate of the slot, given the slots before."""
    expected_loss: Doubles
    """Sum over candidates of propensity * (best - value)."""
    code: NDArray[np.float16]
    """What is kept of each slot's draw; see `chances`."""
    slate_loss: Doubles = field(default_factory=lambda: np.zeros(0))
    """[B]: utility of the greedy slate less that of this one."""
    tried: Slates | None = None
    """In shadow: what would have been drawn. It was not served."""

    @property
    def loss(self) -> Doubles:
        """Realised loss of each slot against its best."""
        return self.best - self.value

    def joint(self) -> Doubles:
        """Probability of each whole slate, [B]."""
        return np.asarray(self.propensity.prod(1))


def slate_seeds(run_seed: int, tick: int, keys: Sequence[str], cause: str | Sequence[str]) -> U64:
    """A seed for each slate's draws, uint64 [B], from what identifies it and nothing else.

    >>> slate_seeds(1, 7, ["*", "ab"], "touched").tolist() == [
    ...     int(slate_seeds(1, 7, [key], "touched")[0]) for key in ("*", "ab")
    ... ]
    True
    """
    causes = [cause] * len(keys) if isinstance(cause, str) else cause
    names = (f"{tick}|{key}|{why}" for key, why in zip(keys, causes, strict=True))
    named = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return hash64(run_seed, np.frombuffer(b"".join(named), "<u8"))


def draw(offer: Offer, rules: DrawRules, *, safe: bool | Bools = False, shadow: bool = False) -> Slates:
    """Fill B slates.

    Args:
        offer: their candidates.
        rules: settings.
        safe: bool or bool [B], slates that must be greedy, e.g. because the loss budget is spent.
        shadow: serve the greedy slates, and say in `tried` what would have been drawn.
    """
    offer, n = _sound(offer), len(offer.utility)
    cosines = None if offer.vectors is None else Cosines(offer.vectors, rules.n_slots)
    may_explore = policy_of(rules.policy).known != Known.DETERMINISTIC
    explores = ~np.broadcast_to(np.asarray(safe, np.bool_), (n,)) & may_explore
    if n == 1 and not shadow:
        return _alone(offer, rules, cosines, is_drawn=bool(explores[0]))
    if 0 < n <= ALONGSIDE and explores.any() and not shadow:
        return _alongside(offer, rules, cosines, explores)
    filling = _Filling(offer, rules, cosines, explores)
    filling.fill()
    lost = np.zeros(n)
    # Where every pick was the greedy one, the greedy slate is the same and need not be made.
    strayed = np.flatnonzero(filling.strayed())
    if len(strayed):
        beside = _Filling(_of(offer, strayed), rules, cosines and cosines.of(strayed), np.zeros(len(strayed), np.bool_))
        beside.fill()
        lost[strayed] = beside.worth() - filling.worth()[strayed]
    drawn = replace(filling.slates, slate_loss=lost)
    if not shadow:
        return drawn
    greedy = _Filling(offer, rules, cosines, np.zeros(n, np.bool_))
    greedy.fill()
    return replace(greedy.slates, slate_loss=np.zeros(n), tried=drawn)


def _alongside(offer: Offer, rules: DrawRules, cosines: Cosines | None, explores: Bools) -> Slates:
    """The drawn slates and the greedy ones as one batch: of few slates the steps cost more than what they do."""
    n = len(explores)
    twice = np.tile(np.arange(n), 2)
    both = _Filling(_of(offer, twice), rules, cosines and cosines.of(twice), np.append(explores, np.zeros(n, np.bool_)))
    both.fill()
    worth = both.worth()
    told = {name: getattr(both.slates, name)[:n] for name in Slates.__slots__ if name not in ("slate_loss", "tried")}
    return Slates(**told, slate_loss=worth[n:] - worth[:n])


def _alone(offer: Offer, rules: DrawRules, cosines: Cosines | None, *, is_drawn: bool) -> Slates:
    """A single slate, slot by slot on arrays of one dimension."""
    policy, utility, chance = policy_of(rules.policy), offer.utility[0], None
    gains = Gains(utility, cosines, rules.diversity, strength=rules.strength, n_slots=rules.n_slots)
    pins = _pins(offer, rules.n_slots)[0].tolist()
    barred = np.where(offer.allowed[0], 0.0, BARRED)
    barred[[pin for pin in pins if pin != MISSING]] = BARRED
    if is_drawn:
        draws = hash01(rules.seed, offer.seeds, np.arange(rules.n_slots)).tolist()
        noise = _noise(offer, rules.seed, policy.n_worlds) if policy.n_worlds else None
        chance = Chance(draws, None if offer.trial is None else offer.trial[0], noise)
    one = Filling(gains, barred, pins, rules, chance)
    one.fill()
    lost = 0.0 if one.greedy is None else one.greedy.worth(utility) - one.worth(utility)
    return Slates(
        column=np.array([one.column], np.int32),
        propensity=np.array([one.propensity]),
        known=np.array([one.known], np.uint8),
        explored=np.array([one.explored]),
        value=np.array([one.value]),
        best=np.array([one.best]),
        expected_loss=np.array([one.expected_loss]),
        code=np.array([one.code], np.float16),
        slate_loss=np.array([lost]),
    )


def _sound(offer: Offer) -> Offer:
    """A candidate without a finite utility is not allowed; a utility below zero counts as zero."""
    finite = np.isfinite(offer.utility)
    utility = np.where(finite, np.maximum(offer.utility, 0.0), 0.0)
    return replace(offer, utility=utility, allowed=offer.allowed & finite)


def _of(offer: Offer, slates: Rows) -> Offer:
    """Some of the slates, or some twice; their vectors are with the cosines."""

    def some(column: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if column is None else column[slates]

    return Offer(
        offer.utility[slates],
        offer.allowed[slates],
        offer.seeds[slates],
        spread=some(offer.spread),
        trial=some(offer.trial),
        pinned=some(offer.pinned),
    )


class _Filling:
    """Slates on their way from the first slot to the last."""

    def __init__(self, offer: Offer, rules: DrawRules, cosines: Cosines | None, explores: Bools) -> None:
        self._offer, self._rules, self._explores = offer, rules, explores
        self._policy = policy_of(rules.policy)
        self._diversity = Diversity(
            offer.utility, cosines, rules.diversity, strength=rules.strength, n_slots=rules.n_slots
        )
        n, n_slots = len(offer.utility), rules.n_slots
        self._row, self._pinned = np.arange(n), _pins(offer, n_slots)
        self._start = self._row * offer.utility.shape[1]
        # Added to the values: what may not be drawn is below every value that may. Flat, for it is indexed much.
        self._barred = np.where(offer.allowed, 0.0, BARRED)
        self._barred_flat = self._barred.reshape(-1)
        self._has_pin = (self._pinned != MISSING).any(0).tolist()
        for k in np.flatnonzero(self._has_pin):
            held = self._pinned[:, k] != MISSING
            self._barred[self._row[held], self._pinned[held, k]] = BARRED
        self._n_explored = np.zeros(n, np.int64)
        self._draws = self._noise = None
        if explores.any():
            self._draws = hash01(rules.seed, offer.seeds[:, None], np.arange(n_slots))
            self._noise = _noise(offer, rules.seed, self._policy.n_worlds) if self._policy.n_worlds else None
        self._passed = np.zeros((n, n_slots), np.bool_)
        """Another one was drawn."""
        self.slates = Slates(
            column=np.full((n, n_slots), MISSING, np.int32),
            propensity=np.ones((n, n_slots)),
            known=np.full((n, n_slots), Known.DETERMINISTIC, np.uint8),
            explored=np.zeros((n, n_slots), np.bool_),
            value=np.zeros((n, n_slots)),
            best=np.zeros((n, n_slots)),
            expected_loss=np.zeros((n, n_slots)),
            code=np.ones((n, n_slots), np.float16),
        )
        self._first, self._chance = np.zeros((n, n_slots), np.intp), np.ones((n, n_slots))
        """The greedy candidate of each slot, and the probability that it had."""

    def fill(self) -> None:
        """All slots."""
        for k in range(self._rules.n_slots):
            self._step(k)
        if self._draws is not None:
            first, passed = self._first, self._passed
            moved = np.zeros(passed.shape, np.bool_)
            moved[:, 1:] = passed[:, :-1] & ~passed[:, 1:] & (first[:, 1:] == first[:, :-1])
            self.slates.code[:] = coded(self._chance, passed, moved)

    def strayed(self) -> Bools:
        """The slates in which a candidate other than the greedy one was drawn, [B]."""
        return np.asarray(self._passed.any(1))

    def worth(self) -> Doubles:
        """Utility of each slate as far as it is filled, [B]."""
        column = self.slates.column
        taken = self._offer.utility[self._row[:, None], column]
        return np.asarray(np.where(column == MISSING, 0.0, taken).sum(1))

    def _step(self, k: int) -> None:
        rules, out = self._rules, self.slates
        value = self._diversity.value()
        masked = value + self._barred
        first = masked.argmax(1)
        best = masked.take(self._start + first)
        filled = open_ = best >= 0
        if self._has_pin[k]:
            pin = self._pinned[:, k]
            first = np.where(pin != MISSING, pin, first)
            filled, open_ = filled | (pin != MISSING), filled & (pin == MISSING)
            best = np.where(pin != MISSING, value.take(self._start + first), best)
        best = np.maximum(best, 0.0)
        pick = self._first[:, k] = first
        if k >= rules.first_explorable and self._draws is not None:
            open_ = open_ & self._explores & (self._n_explored < rules.max_explored)
            pick = self._explore(k, value, best, open_, first) if open_.any() else first
            shown = np.where(filled, value.take(self._start + pick), 0.0)
            explored = shown < best
            out.value[:, k], out.explored[:, k] = shown, explored
            self._n_explored += explored
            self._passed[:, k] = pick != first
        else:
            out.value[:, k] = best
        out.column[:, k] = np.where(filled, pick, MISSING)
        out.best[:, k] = best
        self._barred_flat[self._start + pick] = BARRED
        if k + 1 < rules.n_slots:
            self._diversity.take(pick)

    def _explore(self, k: int, value: Doubles, best: Doubles, open_: Bools, first: Rows) -> Rows:
        """Draw the slot where it is open; returns the picks of all."""
        assert self._draws is not None
        rows = self._row if open_.all() else np.flatnonzero(open_)
        free, draws = self._barred == 0, self._draws[:, k]
        if len(rows) < len(self._row):
            value, free, best, draws = value[rows], free[rows], best[rows], draws[rows]
        p = self._probabilities(value, free, rows)
        reached = p.cumsum(1)
        # A draw is below one, so it is below the total: the first sum above it belongs to a positive probability.
        drawn = (reached <= (draws * reached[:, -1])[:, None]).sum(1)
        out = self.slates
        out.propensity[rows, k] = p.take(self._start[: len(rows)] + drawn)
        out.known[rows, k] = self._policy.known
        self._chance[rows, k] = p.take(self._start[: len(rows)] + first[rows])
        # Probabilities are zero where nothing may be drawn, and sum to one.
        out.expected_loss[rows, k] = np.maximum(best - (p * value).sum(1), 0.0)
        pick = first.copy()
        pick[rows] = drawn
        return pick

    def _probabilities(self, value: Doubles, free: Bools, rows: Rows) -> Doubles:
        """Of the policy; with items on trial it has the rest of the budget, so that the bound holds for both."""
        budget = np.full(len(rows), self._rules.budget)
        worlds = None if self._noise is None else value[:, None, :] + self._noise[rows]
        waiting = None if self._offer.trial is None else self._offer.trial[rows] & free
        if waiting is None or not waiting.any():
            return self._policy.probabilities(Slot(value, free, budget, worlds))
        share = np.where(waiting.any(1), TRIAL_SHARE * budget, 0.0)
        rest = (budget - share) / (1.0 - share)
        p = self._policy.probabilities(Slot(value, free, rest, worlds))
        each = waiting / np.maximum(waiting.sum(1, keepdims=True), 1)
        return np.asarray((1.0 - share)[:, None] * p + share[:, None] * each)


def _pins(offer: Offer, n_slots: int) -> I32:
    """Pins that may be shown; the others are as if they were not."""
    if offer.pinned is None:
        return np.full((len(offer.utility), n_slots), MISSING, np.int32)
    allowed = np.take_along_axis(offer.allowed, np.maximum(offer.pinned, 0).astype(np.intp), 1)
    return np.where(allowed & (offer.pinned != MISSING), offer.pinned, MISSING).astype(np.int32)


def _noise(offer: Offer, seed: int, n_worlds: int) -> Doubles:
    """What n_worlds draws add to the values, float64 [B, R, M]: independent normals of the candidates' spread."""
    if offer.spread is None:
        raise ValueError("this policy wants the candidates' spread")
    world, candidate = np.arange(n_worlds)[None, :, None], np.arange(offer.utility.shape[1])
    at = (offer.seeds[:, None, None], world, candidate)
    radius = np.sqrt(-2.0 * np.log1p(-hash01(seed, 1, *at)))
    normal = radius * np.cos(2.0 * np.pi * hash01(seed, 2, *at))
    return np.asarray(normal * np.maximum(offer.spread, NARROWEST)[:, None, :])
