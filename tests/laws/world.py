"""A small shop's recorded stream and the real loop over memory ports, shared by the tests of the laws.

A stream is a list of `Chunk`: what had arrived when the worker's clock stood at a time. The shop that made it saw the
slates the very loop published, so impressions and clicks name decisions that exist. Small capacities make every table
evict; roomy ones let a batch computation over the whole log be compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from hypothesis import Phase, settings

from stream_rec import assemble, component, config
from stream_rec.clock import ManualClock
from stream_rec.demo_run import Shopfront
from stream_rec.effects import Effects
from stream_rec.events import Output, Record, Topic
from stream_rec.fold import Identity
from stream_rec.io.faults import Crash, Faults
from stream_rec.io.memory import MemoryCheckpoints, MemoryPublisher, MemorySource, MemoryWeights
from stream_rec.io.memory_broker import MemoryBroker
from stream_rec.loop import Live, Loop
from stream_rec.pipeline import Pipeline
from stream_rec.ports import Ports
from stream_rec.simulate import Shop, ShopPlan
from stream_rec.stream import ledger
from stream_rec.stream.tick import Tick

KEY = "the key of the laws"
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
OUTPUT_TOPICS = (Topic.SLATES, Topic.VERSIONS, Topic.DEAD_LETTERS, Topic.METRICS, Topic.LEDGER)

COMMON = (
    f"privacy.key={KEY}",
    "run.seed=3",
    "tick.max_records=64",
    "slate.n_slots=12",
    "slate.refresh_users_per_tick=6",
    "slate.star_every_ms=3600000",
    "explore.start=on",
    "explore.trial_impressions=3",
    "learn.light_cut_examples=100",
    "learn.sample_one_in=1",
    "gate.min_users=0",
    "learn.micro_batch=8",
    "report.interval_ms=21600000",
    "quality.dead_letter_share=1",
)
SMALL = (
    *COMMON,
    "dedupe.capacity=300",
    "users.capacity=100",
    "histories.capacity=250",
    "items.capacity=100",
    "attribution.max_decisions=60",
    "attribution.max_exposures=40",
    "window.capacity=150",
    "window.length_ms=129600000",
    "reservoir.capacity=40",
    "learn.max_pending_visits=30",
    "learn.recent_capacity=200",
    "learn.exact_items=60",
    "learn.neighbours=8",
    "watermark.max_partitions=4",
    "search.capacity=40",
    "search.max_searchers=30",
    "search.slates_per_tick=6",
)
"""Everything evicts."""
ROOM = (
    "dedupe.capacity=20000",
    "users.capacity=3000",
    "histories.capacity=20000",
    "items.capacity=3000",
    "attribution.max_decisions=10000",
    "attribution.max_exposures=5000",
    "learn.max_pending_visits=2000",
    "learn.recent_capacity=20000",
    "watermark.max_partitions=4",
)
ROOMY = (*COMMON, *ROOM, "window.capacity=120", "window.length_ms=129600000")
"""Nothing but the window evicts."""

LAW = settings(derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate))
"""Examples are drawn the same at every run; a failing one is shown as drawn, since a run is long and shrinking many."""


def settings_of(*sets: str) -> config.Settings:
    """Settings from `section.key=value` texts alone."""
    return config.load(None, list(sets), {})


def pipeline_of(sets: Sequence[str] = SMALL) -> Pipeline:
    """A fresh pipeline."""
    return assemble.pipeline_of(settings_of(*sets))


def identity_of(sets: Sequence[str] = SMALL) -> Identity:
    """Who runs, by the settings; the build is a word, so that muted ticks are always proved."""
    return Identity(config.semantic_digest(settings_of(*sets))[:16], "one build", "laws", {"mode": "laws"})


# ---- streams


@dataclass(frozen=True)
class Chunk:
    """Records that have arrived by `now_ms` of the worker's clock."""

    now_ms: int
    records: tuple[Record, ...]


def n_records(stream: Iterable[Chunk]) -> int:
    """Records of a stream."""
    return sum(len(chunk.records) for chunk in stream)


@lru_cache(maxsize=4)
def shop_stream(sets: tuple[str, ...] = SMALL, *, days: float = 2.5, seed: int = 5) -> tuple[Chunk, ...]:
    """A seeded shop of 130 items that sees the slates of the loop, with dirt, extras and commands mixed in."""
    plan = ShopPlan(
        days=days, n_users=90, n_items=130, visits_per_day=200, dirty_share=0.1, outage_day=1.0, outage_hours=3,
        anonymous_share=0.3,
    )  # fmt: skip
    shop, world, front = Shop(seed, plan), World(sets), Shopfront(KEY.encode())
    world.on_commit = lambda _tick, effects: front.receive(effects)
    chunks = []
    opening = shop.catalogue()
    now_ms = shop.start_ms
    for step in range(int(plan.days * 6) + 1):
        front.at(now_ms)
        new = opening + shop.step(now_ms + 4 * HOUR_MS, front.slate) if step else opening
        opening = []
        now_ms += 4 * HOUR_MS if step else 0
        chunk = Chunk(now_ms, (*new, *extras(step, now_ms), *clicks_without_impression(step, now_ms, world)))
        chunks.append(chunk)
        world.arrive(chunk)
        world.catch_up()
    return tuple(chunks)


def extras(step: int, now_ms: int) -> Iterator[Record]:
    """Records the simulated shop does not make, in the last minute before `now_ms`."""
    at_ms, item, visitor = now_ms - MINUTE_MS, f"extra-{step}", f"visitor-{step}"
    said: list[tuple[int, dict[str, Any] | bytes]] = [
        (0, {"event_type": "purchase", "order_id": f"o-{step}", "items": [{"item_id": item}, {"item_id": "shared"}]}),
        (0, {"event_type": "view_item", "item_id": item}),
        (0, {"event_type": "view_item", "user_id": visitor, "items": [{"item_id": item, "title": f"Carried {step}"}]}),
        (0, {"event_type": "refund", "user_id": visitor, "order_id": "never", "items": [{"item_id": item}]}),
        (1, {"event_type": "purchase", "user_id": visitor, "order_id": f"v{step}", "item_id": item, "price": "3.50"}),
        (1, {"event_type": "purchase", "user_id": visitor, "order_id": f"w{step}", "item_id": item, "campaign": "x"}),
        (1, {"event_type": "refund", "user_id": f" {visitor} ", "order_id": f"v{step}", "item_id": item}),
        (0, {"event_type": "purchase", "user_id": "u000001", "item_id": item, "quantity": -1}),
        (0, {"event_type": "click", "user_id": "u000001", "item_id": item, "event_at": 86_400_000}),
        (1, {"event_type": "click", "user_id": "u000001", "item_id": item, "event_at": 4_070_908_800_000}),
        (1, {"event_type": "heartbeat", "user_id": "u000001"}),
        (1, {"event_type": "click", "user_id": "u000002", "item_id": "shared", "event_at": at_ms - DAY_MS}),
        (0, b"\xff\x00 not a record"),
    ]  # fmt: skip
    if step % 3 == 1:
        back = [{"item_id": item}, {"item_id": "never bought"}]
        said.append((1, {"event_type": "refund", "order_id": f"w{step}", "items": back}))
    for n, (partition, value) in enumerate(said):
        if isinstance(value, dict):
            value = json.dumps({"event_id": f"x{step}-{n}", "event_at": at_ms + n, **value}).encode()
        yield Record(Topic.EVENTS, partition, 0, at_ms + n, b"extra", value)
    updated_at_ms = at_ms - (step % 3) * DAY_MS
    told = {"title": f"Told at {step}", "updated_at": updated_at_ms, "in_stock": step % 2 == 0}
    yield Record(Topic.ITEMS, 0, 0, at_ms, b"shared", json.dumps(told).encode())
    if step in (4, 5):
        word = b"freeze" if step == 4 else b"unfreeze"
        yield Record(Topic.CONTROL, 0, 0, at_ms, None, b'{"command":"%s"}' % word)
    if step == 6:
        yield Record(Topic.CONTROL, 0, 0, at_ms, None, b'{"command":"pin","version":"v1-000000000000"}')


def clicks_without_impression(step: int, now_ms: int, world: World) -> Iterator[Record]:
    """One on the newest slate that is out: its impression is lost or still to come."""
    for slate in [slate for slate in slates_of(world.broker.outputs(Topic.SLATES)) if not slate.get("query")][-1:]:
        said = {"event_id": f"c{step}", "event_type": "click", "event_at": now_ms - MINUTE_MS, "user_id": "u000003"}
        said |= {"decision_id": slate["decision_id"], "item_id": slate["slots"][0]["item_id"]}
        yield Record(Topic.EVENTS, 0, 0, now_ms - MINUTE_MS, b"extra", json.dumps(said).encode())


# ---- running


def new_broker() -> MemoryBroker:
    """Empty topics, two partitions of events."""
    return MemoryBroker({"control": 1, "items": 1, "events": 2})


class World:
    """The loop of a live worker over one broker, killed and started again at will.

    Args:
        sets: settings.
        broker: what outlives a crash; made when not given.
        n_polls: looks at the weight store until a version is durable.
        checkpoint_every: ticks between two checkpoints; 0 for none.
        live: as a long-running worker: claims, idle partitions, catalogue first.
        recovered: whether the first process starts at once.
    """

    def __init__(
        self,
        sets: Sequence[str] = SMALL,
        broker: MemoryBroker | None = None,
        *,
        n_polls: int = 0,
        checkpoint_every: int = 0,
        live: Live | None = None,
        recovered: bool = True,
    ) -> None:
        self.live = live
        self.sets, self.n_polls, self.checkpoint_every = tuple(sets), n_polls, checkpoint_every
        self.broker = broker or new_broker()
        self.clock = ManualClock()
        self.on_commit: Callable[[Tick, Effects], None] | None = None
        if recovered:
            self.start()

    def start(self, faults: Faults | None = None, *, with_checkpoints: bool = True) -> None:
        """A new process over the broker, recovered."""
        self.make(faults, with_checkpoints=with_checkpoints)
        self.loop.recover()

    def make(self, faults: Faults | None = None, *, with_checkpoints: bool = True) -> None:
        """A new process over the broker, not recovered yet."""
        store = self.broker if with_checkpoints else MemoryBroker()
        ports = Ports(
            MemorySource(self.broker),
            MemoryPublisher(self.broker, faults=faults),
            MemoryCheckpoints(store, faults=faults),
            MemoryWeights(self.broker, faults=faults, n_polls=self.n_polls),
        )
        self.ports = ports
        self.loop = Loop(
            lambda: pipeline_of(self.sets),
            ports,
            identity_of(self.sets),
            max_records=settings_of(*self.sets).tick.max_records,
            live=self.live,
        )
        self.loop.on_commit = lambda tick, effects: self.on_commit(tick, effects) if self.on_commit else None

    def arrive(self, chunk: Chunk) -> None:
        """Put a chunk's records into the topics and the clock to its time."""
        self.broker.extend(chunk.records)
        self.clock.set(chunk.now_ms)

    def catch_up(self) -> None:
        """Tick until there is nothing to do at this time of the clock."""
        while self.loop.step(cut_at_ms=self.clock.now_ms()):
            number = self.loop.pipeline.positions.number
            if self.checkpoint_every and number % self.checkpoint_every == 0:
                self.loop.checkpoint()

    def play(self, stream: Iterable[Chunk]) -> World:
        """Take a whole stream."""
        for chunk in stream:
            self.arrive(chunk)
            self.catch_up()
        return self

    @property
    def pipeline(self) -> Pipeline:
        """The state."""
        return self.loop.pipeline

    def entries(self) -> list[dict[str, Any]]:
        """The committed ledger, decoded."""
        return [ledger.decode(output.value or b"", at) for at, output in self.broker.read_committed(Topic.LEDGER)]

    def ticks(self) -> list[tuple[Tick, list[Record]]]:
        """Every committed tick with its records in processing order, read from the log by the ledger alone."""
        return list(ticks_of(self.entries(), self.broker.inputs))

    def outputs(self) -> dict[str, list[Output]]:
        """What a read_committed reader sees, topic by topic."""
        return {topic: self.broker.outputs(topic) for topic in OUTPUT_TOPICS}


def ticks_of(
    entries: Iterable[dict[str, Any]], inputs: dict[tuple[str, int], list[Record]]
) -> Iterator[tuple[Tick, list[Record]]]:
    """Ticks and their records from ledger entries and the input logs; merged by the pipeline's own rule."""
    positions = pipeline_of().positions
    for entry in entries:
        if entry["kind"] != "tick":
            continue
        tick = Tick.from_json(entry["n"], entry["tick"])
        buffers = {(r.topic, r.partition): inputs[r.topic, r.partition][r.first : r.next] for r in tick.ranges}
        records = positions.order(buffers)
        positions.advance(tick, records)
        yield tick, records


def crashes_at(world: World, stream: Sequence[Chunk], step: int) -> bool:
    """Play `stream`, crash at the `step`-th point any store passes, start again over the same broker and finish.

    Returns:
        Whether there were that many points.
    """
    faults, crashed = Faults(), False
    faults.crash_at_step(step)
    try:
        world.start(faults)
    except Crash:
        crashed = True
        world.start()
    for chunk in stream:
        world.arrive(chunk)
        try:
            world.catch_up()
        except Crash:
            crashed = True
            world.start()
            world.catch_up()
    return crashed


# ---- comparing


def digests(pipeline: Pipeline) -> dict[str, str]:
    """Digest of every component's state, by name."""
    return {name: component.digest(snapshot) for name, snapshot in pipeline.snapshot().items()}


def different(a: Pipeline, b: Pipeline) -> list[str]:
    """Names of the components whose state differs; positions and all."""
    left, right = digests(a), digests(b)
    return [name for name in left if left[name] != right[name]]


def at_rest(snapshots: dict[str, component.Snapshot]) -> dict[str, component.Snapshot]:
    """Snapshots as a store gives them back: private columns, scalars through JSON."""
    out = {}
    for name, snapshot in snapshots.items():
        columns = {k: v.copy() for k, v in snapshot.items() if k != component.SCALARS}
        out[name] = {**columns, component.SCALARS: json.loads(json.dumps(snapshot[component.SCALARS]))}
    return out


def restored(pipeline: Pipeline, sets: Sequence[str] = SMALL) -> Pipeline:
    """A fresh pipeline with the state of another."""
    fresh = pipeline_of(sets)
    fresh.restore(at_rest(pipeline.snapshot()))
    return fresh


def slates_of(outputs: Iterable[Output]) -> list[dict[str, Any]]:
    """The slates among output records, decoded; without tombstones."""
    return [json.loads(o.value) for o in outputs if o.topic == Topic.SLATES and o.value is not None]


@dataclass
class Folded:
    """A pipeline driven tick by tick by a ledger, without a loop."""

    pipeline: Pipeline
    effects: list[Effects] = field(default_factory=list)

    def fold(self, tick: Tick, records: Sequence[Record]) -> Effects:
        """Fold one tick and keep its effects."""
        effects = self.pipeline.fold(tick, records)
        self.effects.append(effects)
        return effects


def rng_of(seed: int) -> np.random.Generator:
    """The seeded draws of a test."""
    return np.random.default_rng(seed)
