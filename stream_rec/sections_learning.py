"""The sections of what is learned: the ranker, the text tower, exploration. See `stream_rec.sections`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from stream_rec.sections import MAX_ROWS, Section, operational, semantic, split, unique

Positive = Literal["click", "view_item", "add_to_cart", "add_to_wishlist", "share", "review", "purchase"]
Positives = Annotated[tuple[Positive, ...], Field(min_length=1), BeforeValidator(split), AfterValidator(unique)]


class Learn(Section):
    """How the ranker learns."""

    positives: Positives = semantic(
        ("add_to_cart", "click", "purchase", "review", "view_item"),
        "Event types that say a user liked an item; words between commas.",
    )
    min_rating: float = semantic(4.0, "Rating from which a review is positive.", ge=0, le=100)
    sample_one_in: int = semantic(
        4,
        "One visit in so many is scored for the metrics, with its next items. 1: all, exact and slower.",
        ge=1,
        le=10_000,
    )
    light_cut_examples: int = semantic(
        10_000, "Examples between two challengers. Fewer: fresher and noisier versions.", ge=100, le=100_000_000
    )
    micro_batch: int = semantic(16, "Examples of one training step.", ge=1, le=65_536)
    steps_per_tick: int = semantic(
        24, "Training steps a tick may take. Fewer: steadier latency, a longer queue.", ge=0, le=10_000
    )
    learning_rate: float = semantic(0.02, "Step size of the ranker's weights.", gt=0, le=10)
    max_visit_examples: int = semantic(
        128, "Visit examples a tick; more are thinned by hash. More: learns more of a burst, slower.", ge=1, le=65_536
    )
    max_next_examples: int = semantic(
        256, "Next-item examples a tick, scored and learned; more are thinned by hash.", ge=0, le=65_536
    )
    max_pending_visits: int = semantic(
        20_000, "Open visits that wait to be scored; beyond it the oldest are evicted and counted.", ge=1, le=10_000_000
    )
    history_rows: int = semantic(256, "Newest positives of a user that features see.", ge=1, le=1_024)
    recent_capacity: int = semantic(
        1_000_000, "Positives held for the popularity of the last seven days.", ge=1, le=MAX_ROWS
    )
    examination_exponent: float = semantic(
        1.0, "How fast attention falls with position: 1 / (position + 1) ** exponent. 0: it does not.", ge=0, le=4
    )
    replay: Literal["none", "window", "reservoir"] = semantic(
        "none", "Where the text tower gets examples to learn from once more; never under lag or the brake."
    )
    replay_examples: int = semantic(
        64, "Examples drawn for that a tick. More: forgets less, follows later, slower.", ge=1, le=65_536
    )
    exact_items: int = semantic(
        5_000, "Items to which co-occurrence is exact; needs up to 4 bytes x items squared.", ge=1, le=20_000
    )
    delayed: Literal["naive", "fake_negative_weighted", "real_negative"] = semantic(
        "fake_negative_weighted",
        "What corrects labels that come after an impression has been trained without them; `naive` does nothing.",
    )
    negatives_kept: float = semantic(
        0.5, "Share of the unclicked slots that train the click and purchase heads. Less: quicker, noisier.", gt=0, le=1
    )
    head_steps_per_tick: int = semantic(
        16, "Steps of 256 shown slots a tick of each head; beyond them more unclicked slots are thinned.", ge=1,
        le=10_000,
    )  # fmt: skip
    neighbours: int = semantic(200, "Neighbours an item keeps above `exact_items`.", ge=1, le=10_000)


class Worth(Section):
    """What comes of an impression is worth: u = click x P(click) + purchase x P(purchase), in [0, 1]."""

    click: float = semantic(0.2, "What a click is worth in a slot's utility.", ge=0, le=1)
    purchase: float = semantic(0.8, "What a purchase is worth; with `click` at most 1.", ge=0, le=1)

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if self.click + self.purchase > 1.0:
            raise ValueError("click and purchase are together at most 1")
        return self


class Gate(Section):
    """What a challenger must show before it serves, and how long it is watched after that."""

    margin: float = semantic(
        0.02, "Share of a champion's recall that a challenger may fall short of. More: fresher, less safe.", gt=0, lt=1
    )
    slice_margin: float = semantic(
        0.05, "The same for new users, new items, head and tail, of which less is seen.", gt=0, lt=1
    )
    alpha: float = semantic(
        0.05, "Chance of calling a challenger worse that is not, over all looks. Less: surer, later.", gt=0, le=0.5
    )
    min_users: int = semantic(
        30, "Users with organic visits below which nothing is promoted. 0: also what could not be compared.", ge=0,
        le=1_000,
    )  # fmt: skip
    guard_visits: int = semantic(
        2_000, "Organic visits for which a promoted version is watched and may be called back.", ge=1, le=100_000_000
    )


class Search(Section):
    """What searches teach, and the slates that answer them."""

    window_ms: int = semantic(
        1_800_000, "Event time in ms after a search in which it may be why something is taken.", ge=1_000, le=86_400_000
    )
    capacity: int = semantic(
        20_000, "Different queries remembered; the newest and most frequent stay.", ge=10, le=1_000_000
    )
    max_searchers: int = semantic(
        50_000, "Users whose last search and query slates are remembered; of others the slates are withdrawn.", ge=10,
        le=10_000_000,
    )  # fmt: skip
    frequent_users: int = semantic(
        20, "Different users from which a query is frequent and has a slate for everybody.", ge=2, le=1_000
    )
    slates_per_tick: int = semantic(
        32, "Slates a tick that answer searches of people, and as many of frequent queries. 0: none.", ge=0, le=10_000
    )
    pairs_per_tick: int = semantic(
        64, "Pairs of a query and what was taken for it that a tick learns from at most.", ge=0, le=10_000
    )
    valid_ms: int = semantic(
        86_400_000, "Event time in ms for which a slate for a query holds.", ge=60_000, le=90 * 86_400_000
    )


class Explore(Section):
    """How slots are filled."""

    policy: Literal["igw", "greedy", "epsilon", "softmax", "thompson", "uniform"] = semantic(
        "igw", "How slots of users' slates are drawn; `greedy` draws nothing and shows the best by the joint logit."
    )
    start: Literal["shadow", "on"] = semantic(
        "shadow", "`shadow`: the best are shown until enough clicks name their decision. `on`: draw from the start."
    )
    named_share: float = semantic(
        0.8, "Share of a day's clicks on recommended items that must name their decision for slates to be drawn.", gt=0,
        le=1,
    )  # fmt: skip
    exploration_budget: float = semantic(
        0.02,
        "Share of a slot's best value that drawing may lose on average. More: learns and costs more.",
        gt=0,
        le=1,
    )
    click_model: Literal["position", "cascade"] = semantic(
        "position", "Which shown items utility is learned from. `position`: all. `cascade`: none below the last click."
    )
    baseline_floor: float = semantic(
        0.9, "Share of what greedy slates would have earned that drawn ones must; below, they are greedy for a day. To "
        "be sure to go on, lose less than half of the rest. 0: nothing is asked.", ge=0, lt=1,
    )  # fmt: skip
    control_share: float = semantic(
        0.0, "Share of users, by hash of their key, whose slates are never drawn: the other arm of a comparison.", ge=0,
        lt=1,
    )  # fmt: skip
    candidates: int = semantic(50, "Best items by the joint logit that a slate is drawn from.", ge=1, le=1_000)
    max_explored: int = semantic(4, "Slots of a slate that may show another item than the best.", ge=0, le=1_000)
    first_explorable: int = semantic(1, "Slots before this one (0-based) always show the best.", ge=0, le=1_000)
    diversity: Literal["dpp", "mmr", "none"] = semantic(
        "dpp", "How an item counts less beside items like it, by text. Without an encoder nothing is alike."
    )
    diversity_strength: float = semantic(0.3, "How much less. 0: not at all.", ge=0, le=1)
    trial_items: int = semantic(4, "Items on trial that stand beside the best in a tick's slates.", ge=0, le=1_000)
    trial_impressions: int = semantic(20, "Impressions until which an item is on trial.", ge=0, le=1_000_000)
    half_life_ms: int = semantic(
        14 * 86_400_000, "Event time in ms in which what was learned of utility counts half.", ge=60_000,
        le=3650 * 86_400_000,
    )  # fmt: skip
    drift_half_life_ms: int = semantic(
        86_400_000, "The same for a day after the reward has drifted.", ge=60_000, le=3650 * 86_400_000
    )


class Model(Section):
    """Which model is learned."""

    encoder: Annotated[str, Field(min_length=1)] = semantic(
        "auto",
        "Text encoder: `minilm` (extra stream-rec[minilm]), a folder, a hub id, or `none` to rank on statistics alone; "
        "`auto` takes minilm when it is installed.",
    )
    max_tokens: int = semantic(
        32, "Tokens of a text that are read. More: long texts count whole, slower.", ge=4, le=512
    )
    embed_texts_per_tick: int = semantic(
        64, "New item texts embedded a tick once events have come. More: new items sooner, a slower tick.",
        ge=1, le=65_536,
    )  # fmt: skip
    tower_steps: int = semantic(
        2, "Steps of the tower a tick. 1: nearly twice as fast, a little worse. 0: it does not learn.", ge=0, le=16
    )
    min_examples: int = semantic(
        192, "Examples of a step of the tower at least; small ticks are put together. More: cheaper, staler.", ge=1,
        le=4_096,
    )  # fmt: skip
    map_rate: float = semantic(0.0005, "Step size of the tower's maps.", gt=0, le=1)
    scalar_rate: float = semantic(0.03, "Step size of its few scalars: temperature, attention.", gt=0, le=1)
    residual_rate: float = semantic(0.0025, "Step size of the items' own residuals.", ge=0, le=1)
    bias_rate: float = semantic(0.1, "Step size of the items' biases.", ge=0, le=10)
    new_item_bonus: float = semantic(
        1.0, "Nats that the tower gives an item never taken when it ranks for a user with a history. More: new items "
        "sooner in slates.", ge=0, le=10,
    )  # fmt: skip
    weight_decay: float = semantic(0.0, "Pull of the maps towards their start, a share of each step.", ge=0, le=1)
    clip: float = semantic(1.0, "Largest norm of a step's gradient.", gt=0, le=1_000)
    warm_up_steps: int = semantic(10, "Steps over which the rates rise.", ge=0, le=100_000)
    adapter_layers: int = semantic(
        1, "Top layers of the encoder with an adapter; the ones below are computed once a text. 0: no adapter.", ge=0,
        le=48,
    )  # fmt: skip
    adapter_rank: int = semantic(8, "Rank of the adapter.", ge=1, le=256)
    adapter_alpha: int = semantic(16, "Scale of the adapter: alpha / rank.", ge=1, le=1_024)
    adapter_rate: float = semantic(0.001, "Step size of the adapter.", gt=0, le=1)
    adapter_dropout: float = semantic(0.0, "Share of the adapter's input dropped in training.", ge=0, lt=1)
    adapter_every_examples: int = semantic(
        20_000, "Examples between two rounds of the adapter.", ge=100, le=1_000_000_000
    )
    adapter_steps: int = semantic(40, "Micro-batches of a round.", ge=1, le=100_000)
    adapter_patience: int = semantic(
        10, "Micro-batches without a better adapter after which a round stops learning.", ge=1, le=100_000
    )
    adapter_texts_per_tick: int = semantic(
        192, "Texts embedded a tick when an adapter embeds the catalogue anew. More: a shorter round, slower ticks.",
        ge=1, le=65_536,
    )  # fmt: skip
    adapter_anchor: float = semantic(0.1, "Pull of an adapter's vectors towards the served ones.", ge=0, le=100)
    adapter_visits: int = semantic(
        2_000, "Organic next items at which an adapter is judged, once. More: surer, later.", ge=100, le=1_000_000
    )
    trunk_cache_bytes: int = operational(
        128 * 1_048_576,
        "Bytes of the file that keeps the encoder's lower layers, taken at once; about 12 kB a text.",
        ge=1_048_576,
        le=2**40,
    )
    use_text: bool = semantic(True, "Whether texts count; for ablations.")
    use_ids: bool = semantic(True, "Whether items have residuals of their own; for ablations.")
