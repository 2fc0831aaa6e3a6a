"""Settings to the learner: the ranker, the gate, the text tower and its encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_rec import config
from stream_rec.explore.slate import DrawRules
from stream_rec.learn.delayed import Delayed
from stream_rec.learn.exploration import ExplorePlan
from stream_rec.learn.guard import GuardRules
from stream_rec.learn.impressions import HeadPlan
from stream_rec.learn.learner import Learner, LearnSettings
from stream_rec.learn.promotion import Rules

if TYPE_CHECKING:
    from stream_rec.model.adapter_round import AdapterRound
    from stream_rec.model.encoder import Encoder
    from stream_rec.model.two_tower import TwoTower

CACHE = "cache"
"""Folder of a run with what can be made again at any time."""


def learner_of(settings: config.Settings) -> Learner:
    """The learner, before anything was learned."""
    s, learn = settings, settings.learn
    return Learner(
        LearnSettings(
            seed=s.run.seed,
            item_capacity=s.items.capacity,
            recent_capacity=learn.recent_capacity,
            max_pending_visits=learn.max_pending_visits,
            visit_gap_ms=s.visits.gap_ms,
            exact_items=learn.exact_items,
            n_neighbours=learn.neighbours,
            history_rows=learn.history_rows,
            new_item_bonus=settings.model.new_item_bonus,
            sample_one_in=learn.sample_one_in,
            max_visit_examples=learn.max_visit_examples,
            max_next_examples=learn.max_next_examples,
            micro_batch=learn.micro_batch,
            rate=learn.learning_rate,
            examination_exponent=learn.examination_exponent,
            cut_examples=learn.light_cut_examples,
            query_capacity=settings.search.capacity,
            adapter_visits=settings.model.adapter_visits,
            gate=gate_of(settings),
            guard=GuardRules(n_visits=s.gate.guard_visits, margin=s.gate.margin, alpha=s.gate.alpha),
            heads=heads_of(settings),
            explore=explore_of(settings),
        ),
        tower_of(settings),
    )


def heads_of(settings: config.Settings) -> HeadPlan:
    """How the heads learn, and what an impression is worth."""
    return HeadPlan(
        delayed=Delayed(settings.learn.delayed),
        kept=settings.learn.negatives_kept,
        max_steps=settings.learn.head_steps_per_tick,
        utility=(settings.utility.click, settings.utility.purchase),
        capacity=settings.attribution.max_exposures,
        n_slots=settings.slate.n_slots,
        seed=settings.run.seed,
    )


def explore_of(settings: config.Settings) -> ExplorePlan:
    """How slates are drawn."""
    explore = settings.explore
    return ExplorePlan(
        DrawRules(
            seed=settings.run.seed,
            n_slots=settings.slate.n_slots,
            policy=explore.policy,
            budget=explore.exploration_budget,
            diversity=explore.diversity,
            strength=explore.diversity_strength,
            max_explored=explore.max_explored,
            first_explorable=explore.first_explorable,
        ),
        n_candidates=explore.candidates,
        n_trial=explore.trial_items,
        trial_impressions=explore.trial_impressions,
        starts_on=explore.start == "on",
        named_share=explore.named_share,
        click_model=explore.click_model,
        baseline_floor=explore.baseline_floor,
        control_share=explore.control_share,
        half_life_ms=explore.half_life_ms,
        short_half_life_ms=min(explore.drift_half_life_ms, explore.half_life_ms),
        item_capacity=settings.items.capacity,
    )


def gate_of(settings: config.Settings) -> Rules:
    """What a challenger must show."""
    return Rules(
        margin=settings.gate.margin,
        slice_margin=settings.gate.slice_margin,
        alpha=settings.gate.alpha,
        min_users=settings.gate.min_users,
    )


def tower_of(settings: config.Settings) -> TwoTower | None:
    """The text tower before anything was learned; None without an encoder.

    Raises:
        SettingsError: the encoder cannot be had.
    """
    if settings.model.encoder in ("none", config.AUTO):
        return None
    # torch takes seconds to import, and most commands need none of it.
    from stream_rec.model.tower_learning import Rates
    from stream_rec.model.two_tower import TowerPlan, TwoTower

    rates = Rates(
        maps=settings.model.map_rate,
        scalars=settings.model.scalar_rate,
        residual=settings.model.residual_rate,
        bias=settings.model.bias_rate,
        clip=settings.model.clip,
        decay=settings.model.weight_decay,
        warm_up=settings.model.warm_up_steps,
    )
    plan = TowerPlan(
        rates,
        settings.model.tower_steps,
        text=settings.model.use_text,
        ids=settings.model.use_ids,
        min_examples=settings.model.min_examples,
        seed=settings.run.seed,
    )
    encoder = encoder_of(settings)
    return TwoTower(encoder, plan, rounds_of(settings, encoder))


def encoder_revision(settings: config.Settings) -> str | None:
    """Stands for the encoder's files; None without an encoder.

    Raises:
        SettingsError: the encoder cannot be had.
    """
    if settings.model.encoder in ("none", config.AUTO):
        return None
    from stream_rec.io import encoders

    return encoders.find(settings.model.encoder).revision


def rounds_of(settings: config.Settings, encoder: Encoder) -> AdapterRound | None:
    """The adapter's slow rounds; None without an adapter."""
    if not settings.model.adapter_layers:
        return None
    from stream_rec.model.adapter import AdapterRates
    from stream_rec.model.adapter_round import AdapterRound, RoundPlan

    plan = RoundPlan(
        every_examples=settings.model.adapter_every_examples,
        steps=settings.model.adapter_steps,
        patience=settings.model.adapter_patience,
        texts_per_tick=settings.model.adapter_texts_per_tick,
        anchor=settings.model.adapter_anchor,
        rates=AdapterRates(rate=settings.model.adapter_rate, dropout=settings.model.adapter_dropout),
    )
    return AdapterRound(encoder, plan, seed=settings.run.seed)


def encoder_of(settings: config.Settings) -> Encoder:
    """The frozen text encoder, with what it keeps of texts in the run folder.

    Raises:
        SettingsError: it cannot be had.
    """
    from stream_rec.io import encoders
    from stream_rec.model.bodies import Plan
    from stream_rec.model.encoder import Encoder
    from stream_rec.model.trunk_cache import TrunkCache

    found = encoders.find(settings.model.encoder)
    plan = Plan(
        pooling=found.pooling,
        adapter_layers=max(1, settings.model.adapter_layers),
        rank=settings.model.adapter_rank,
        alpha=settings.model.adapter_alpha,
    )

    def encoder(cache: TrunkCache | None) -> Encoder:
        tokens, seed = settings.model.max_tokens, settings.run.seed
        return Encoder(
            found.folder, revision=found.revision, max_tokens=tokens, seed=seed, plan=plan, cache=cache
        )  # fmt: skip

    if not settings.model.adapter_layers:
        return encoder(None)
    folder = settings.run_dir / CACHE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return encoder(TrunkCache(str(folder / "trunk"), max_bytes=settings.model.trunk_cache_bytes))
    except OSError:
        # A cache is worth no run: without room for it every text is computed when it is needed.
        return encoder(None)
