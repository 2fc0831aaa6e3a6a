"""Exploration in the loop: what is believed of utility, whether users' slates may be drawn, and their draws.

The head of `stream_rec.explore.posterior` learns what rewards were above the utility that the click and purchase heads
expected, so before there is evidence the belief is theirs. Its features mean the same under every version: that
utility, a share of probability, and counts. So a promotion leaves it as it is, and nothing has to be computed again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.events import MISSING
from stream_rec.explore import chances
from stream_rec.explore.budget import LossBudget
from stream_rec.explore.examination import Examination
from stream_rec.explore.forgetting import HalfLives
from stream_rec.explore.policy import Known, policy_of
from stream_rec.explore.posterior import DAY_MS, HeadRules, Posterior
from stream_rec.explore.slate import DrawRules, Offer, Slates, draw
from stream_rec.explore.switch import Switch
from stream_rec.learn.floor import BaselineFloor
from stream_rec.learn.impressions import BITS, Impressions, scored_slots
from stream_rec.learn.scoring import Catalogue, Ranked
from stream_rec.model.heads import CLICK, SCORED
from stream_rec.stream.decisions import UNSAID
from stream_rec.stream.exposures import CLICKED, LATE, WEAK, Exposed, positives, unclear
from stream_rec.stream.joins import Matured
from stream_rec.stream.sampling import hash01, hash64, in_sample

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

OFF, SHADOW, SAFE, ON = "off", "shadow", "safe", "on"
"""What becomes of slates: ranked, no policy draws; ranked, and draws are tried beside them; greedy for now; drawn."""

KEPT = tuple(SCORED.index(name) for name in ("log_share", "popular_7d", "own_visits"))
N_FEATURES = 2 + len(KEPT)
LEAST = 1e-6
ANY = sum(BITS)
CASCADE = "cascade"
TRIAL_SEED, ARM_SEED = 31, 41
SHADOW_SLATES = 16
CONTROL, DRAWN = "control", "drawn"
"""Arms of a comparison."""


@dataclass(frozen=True, slots=True)
class ExplorePlan:
    """Settings of exploration."""

    draws: DrawRules = field(default_factory=lambda: DrawRules(policy="greedy"))
    n_candidates: int = 50
    """Best items by the joint logit that a slate is drawn from."""
    n_trial: int = 4
    """Items on trial that stand beside them."""
    trial_impressions: int = 20
    """Impressions until which an item is on trial."""
    starts_on: bool = False
    named_share: float = 0.8
    baseline_floor: float = 0.9
    """Share of what greedy slates earn that drawn ones must; 0: nothing is asked."""
    click_model: str = "position"
    """Which slots count as seen; `cascade`: those after the last click do not."""
    control_share: float = 0.0
    """Of the users, whose slates are never drawn."""
    half_life_ms: int = 14 * DAY_MS
    short_half_life_ms: int = DAY_MS
    """For `spell_ms` after a drift alarm."""
    spell_ms: int = DAY_MS
    shadow_one_in: int = 8
    """In shadow, ticks of which one also draws slates, to say what it would have cost."""
    item_capacity: int = 200_000


class Trials(Component):
    """How often each item was shown. Columns: `n_shown` int32 by item row."""

    columns = ("n_shown",)

    def __init__(self, capacity: int) -> None:
        self.n_shown = np.zeros(capacity, np.int32)


class Drawn(NamedTuple):
    """How B slates of k slots were chosen, for their records; arrays [B, k] unless said."""

    propensity: Doubles
    deterministic: Mask
    explored: Mask
    n_admitted: npt.NDArray[np.int64]
    """[B] candidates that the slate was drawn from."""
    code: Halves
    """What is kept of each draw; see `stream_rec.explore.chances`."""


class Exploration:
    """See the module docstring.

    Args:
        plan: settings.
        impressions: expect the utility of slots.
    """

    def __init__(self, plan: ExplorePlan, impressions: Impressions) -> None:
        self.plan, self._impressions = plan, impressions
        self.lives = HalfLives(plan.half_life_ms, plan.short_half_life_ms, plan.spell_ms)
        self.head = Posterior(HeadRules(N_FEATURES, plan.item_capacity), self.lives)
        self.budget, self.tried = LossBudget(plan.draws.budget), LossBudget(plan.draws.budget)
        self.switch, self.trials = Switch(plan.named_share, is_on=plan.starts_on), Trials(plan.item_capacity)
        self.examination = Examination(plan.draws.n_slots)
        self.floor = BaselineFloor(plan.baseline_floor)
        self.draws_at_all = policy_of(plan.draws.policy).known != Known.DETERMINISTIC

    def components(self) -> dict[str, Component]:
        """Everything that is state, by name."""
        return {
            "explore_lives": self.lives,
            "explore_head": self.head,
            "explore_budget": self.budget,
            "explore_tried": self.tried,
            "explore_floor": self.floor,
            "explore_examination": self.examination,
            "explore_switch": self.switch,
            "explore_trials": self.trials,
        }

    # ---- what is known

    def mode(self, *, braking: bool) -> str:
        """What becomes of the slates of this tick."""
        if not self.draws_at_all:
            return OFF
        if not self.switch.is_open:
            return SHADOW
        return SAFE if braking or self.floor.is_below or self.budget.is_spent() else ON

    def table(self, *, braking: bool) -> dict[str, Any]:
        """For people and the metrics: mode, why it does not draw, what drawing has cost."""
        mode = self.mode(braking=braking)
        why = {OFF: f"explore.policy is {self.plan.draws.policy}", SHADOW: self.switch.why_off(), ON: ""}
        spent = "the brake is on" if braking else self.floor.why() or "the budget of realised loss is spent"
        accounts = self.tried if mode == SHADOW else self.budget
        shares = {name: round(share, 6) for name, share in accounts.shares().items()} if accounts.n_slots else {}
        on_trial = self.trials.n_shown
        return {
            "mode": mode,
            "why_off": why.get(mode, spent),
            "policy": self.plan.draws.policy,
            "budget": self.plan.draws.budget,
            "slots": accounts.n_slots,
            **shares,
            **{name: round(figure, 6) for name, figure in self.floor.figures().items()},
            "observed": self.head.n_observed,
            "examination": self.examination.eta(),
            "items_tried": int(np.count_nonzero(on_trial >= self.plan.trial_impressions)),
        }

    def trial_items(self, catalogue: Catalogue, tick: int) -> Rows:
        """Item rows that stand beside the best of every slate of a tick: of those on trial a few, by chance."""
        n, plan = catalogue.n_items, self.plan
        waiting = self.trials.n_shown[:n] < plan.trial_impressions
        if catalogue.servable is not None:
            waiting &= catalogue.servable[:n]
        rows = np.flatnonzero(waiting).astype(np.int32)
        order = np.argsort(hash64(plan.draws.seed + TRIAL_SEED, rows, tick), kind="stable")
        return np.sort(rows[order[: plan.n_trial]])

    def arms(self, user_key: Ints) -> list[tuple[str | None, Mask]]:
        """Arms with the users [B] of each, by hash of their keys; None: there is one arm only.

        Args:
            user_key: 63 bits of it, [B].
        """
        if not self.draws_at_all or not self.plan.control_share:
            return [(None, np.ones(len(user_key), np.bool_))]
        held = np.asarray(hash01(self.plan.draws.seed + ARM_SEED, user_key) < self.plan.control_share)
        return [(CONTROL, held), (DRAWN, ~held)]

    # ---- learning

    def learn(self, shown: Matured | None, *, braking: bool) -> None:
        """Learn from impressions whose click wait has closed, and from rewards that came later.

        Nothing is learned while the brake is on, nor where the user acted on the item without naming the decision.
        """
        if shown is None:
            return
        seen = shown.click.items[shown.click.items >= 0]
        np.add.at(self.trials.n_shown, seen, 1)
        if braking or not self.draws_at_all:
            return
        closed, late = shown.click, shown.late
        self._hold_to_the_floor(closed)
        self._look_at_positions(closed)
        use = scored_slots(closed) & (unclear(closed.labels) & ANY == 0) & self._seen(closed)
        x, worth, items, at_ms = self._slots(closed, use)
        self.head.observe(x, items, self._reward(positives(closed.labels)[use]) - worth, at_ms)
        new = positives(late.labels) & ~late.told & ANY
        use = scored_slots(late) & (new > 0) & (late.labels & WEAK == 0) & self._seen(late)
        x, _, items, at_ms = self._slots(late, use)
        self.head.late(x, items, self._reward(new[use]), at_ms)

    def _hold_to_the_floor(self, closed: Exposed) -> None:
        """Account what drawn slates earned within the click wait; those that were only ranked tell nothing of it."""
        if not len(closed.at_ms):
            return
        drawn = chances.is_drawn(closed.drawn)
        earned = self._reward(positives(closed.labels[drawn])).sum(axis=1)
        self.floor.add(earned, chances.greedy_weight(closed.drawn[drawn]), int(closed.at_ms.max()))

    def _look_at_positions(self, closed: Exposed) -> None:
        """Count items that chance has moved down by one, and what the click head expected of them."""
        rows = np.flatnonzero(chances.is_drawn(closed.drawn))
        scored, place, labels = closed.scored[rows], closed.positions[rows], closed.labels[rows]
        use = scored_slots(closed)[rows] & (unclear(labels) & CLICKED == 0)
        expected, above = np.full((2, *use.shape), np.nan)
        expected[use] = self._impressions.chance(CLICK, scored[use], place[use])
        above[use] = self._impressions.chance(CLICK, scored[use], np.maximum(place[use] - 1, 0))
        self.examination.add(closed.drawn[rows], place, positives(labels) & CLICKED > 0, expected, above)

    def _seen(self, of: Exposed) -> Mask:
        """Slots that count as seen, [M, n_slots]: all, or by the cascade none below the last that was clicked in time.

        A list without a click counts as seen to its end.
        """
        if self.plan.click_model != CASCADE:
            return np.ones(of.items.shape, np.bool_)
        clicked = (positives(of.labels) & CLICKED > 0) & (of.told & (CLICKED << LATE) == 0)
        last = np.where(clicked, of.positions, MISSING).max(axis=1, initial=MISSING)
        return np.asarray((of.positions <= last[:, None]) | (last == MISSING)[:, None])

    def alarm(self, now_ms: int) -> None:
        """Drift was seen: forget faster for a while."""
        self.head.alarm(now_ms)

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that other items take over."""
        self.head.forget_items(rows)
        self.trials.n_shown[rows] = 0

    def _reward(self, bits: npt.NDArray[np.uint8]) -> Doubles:
        weights = self._impressions.plan.utility
        return np.asarray(np.stack([bits & bit > 0 for bit in BITS], axis=-1) @ np.asarray(weights, np.float64))

    def _slots(self, of: Exposed, use: Mask) -> tuple[Doubles, Doubles, Rows, npt.NDArray[np.int64]]:
        place = of.positions[use]
        seen = self.examination.correction()[np.minimum(place, self.plan.draws.n_slots - 1)]
        worth = np.minimum(self._impressions.expected(of.scored[use], place) * seen, 1.0)
        return _features(of.scored[use], worth), worth, of.items[use], of.at_ms[np.nonzero(use)[0]]

    # ---- drawing

    def draw(self, ranked: Ranked, seeds: U64, *, safe: bool, vectors: Floats | None) -> tuple[Ranked, Drawn]:
        """Draw slates from candidates, and account what that cost.

        Args:
            ranked: B users' candidates, M each, best first.
            seeds: of the slates, [B].
            safe: the slates must be greedy.
            vectors: of the items by row, for diversity; None: nothing is alike.
        """
        offer = self._offer(ranked, seeds, vectors)
        slates = draw(offer, self.plan.draws, safe=safe)
        self.budget.add(slates)
        return _picked(ranked, slates), Drawn(
            slates.propensity,
            slates.known == Known.DETERMINISTIC,
            slates.explored,
            offer.allowed.sum(1),
            slates.code,
        )

    def n_tried(self, tick: int) -> int:
        """How many of a tick's first slates are also drawn in shadow: some in few ticks, for a draw has fixed costs."""
        return SHADOW_SLATES if in_sample(tick, self.plan.shadow_one_in, self.plan.draws.seed) else 0

    def try_out(self, ranked: Ranked, seeds: U64, *, vectors: Floats | None) -> None:
        """Account what drawing would have cost; the arguments are those of `draw`."""
        self.tried.add(draw(self._offer(ranked, seeds, vectors), self.plan.draws))

    def _offer(self, ranked: Ranked, seeds: U64, vectors: Floats | None) -> Offer:
        there = ranked.items >= 0
        items, scored = ranked.items[there], ranked.scored[there]
        # All are believed in at one place, the first that may be drawn: gaps are shares of the best of the same slot.
        place = np.full(len(items), self.plan.draws.first_explorable)
        worth = self._impressions.expected(scored, place)
        belief = self.head.predict(_features(scored, worth), items, offset=worth)
        utility, spread = np.zeros(there.shape), np.zeros(there.shape)
        utility[there], spread[there] = belief
        trial = there & (self.trials.n_shown[np.maximum(ranked.items, 0)] < self.plan.trial_impressions)
        beside = None if vectors is None else vectors[np.maximum(ranked.items, 0)]
        return Offer(utility, there, seeds, spread=spread, vectors=beside, trial=trial)


def with_trials(catalogue: Catalogue, rows: Rows) -> Catalogue:
    """The catalogue in which some items stand beside the best."""
    return replace(catalogue, beside=rows)


def _features(scored: Halves, worth: Doubles) -> Doubles:
    told = scored.astype(np.float64)
    return np.column_stack([worth, np.log(np.maximum(worth, LEAST)), *(told[:, k] for k in KEPT)])


def _picked(ranked: Ranked, slates: Slates) -> Ranked:
    """The candidates that the slates show, in their order."""
    there, column = slates.column >= 0, np.maximum(slates.column, 0)
    row = np.arange(len(column))[:, None]
    return Ranked(
        np.where(there, ranked.items[row, column], MISSING).astype(np.int32),
        np.where(there, ranked.scores[row, column], -np.inf).astype(np.float32),
        np.where(there, ranked.reasons[row, column], 0).astype(np.int8),
        np.where(there[:, :, None], ranked.scored[row, column], UNSAID).astype(np.float16),
    )
