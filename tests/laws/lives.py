"""Lives of a worker over one broker: another name, other settings, another beginning from one start to the next."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from stream_rec import assemble, config
from stream_rec.events import Output, Topic
from stream_rec.fold import Beginning, Identity, Loaded
from stream_rec.follow import follow
from stream_rec.io.faults import Crash, Faults
from stream_rec.io.memory import MemoryCheckpoints, MemoryPublisher, MemorySource, MemoryWeights
from stream_rec.io.memory_broker import MemoryBroker
from stream_rec.loop import Live, Loop
from stream_rec.ports import Ports, TopicPartition
from stream_rec.stream.ledger import GENESIS_CHAIN, chain_of
from tests.laws.world import OUTPUT_TOPICS, SMALL, Chunk, World, different, settings_of, shop_stream

CHANGED = (*SMALL, "learn.learning_rate=0.01", "slate.valid_ms=86400000")
"""Other semantic settings, none of which sizes a table."""
PUBLISHED = tuple(topic for topic in OUTPUT_TOPICS if topic != Topic.LEDGER)
NEW = (Topic.EVENTS, 2)
"""The partition that appears."""
STREAM = shop_stream(days=1.0)
APPEARS, CHANGES = 3, 5
"""Chunks before which a partition appears, and before which the settings change."""


class Lives(World):
    """A live worker; `sets`, `learner` and `init` are those of its next start."""

    def __init__(
        self,
        sets: Sequence[str] = SMALL,
        broker: MemoryBroker | None = None,
        *,
        learner: str = "one",
        live: Live | None = Live(idle_ms=60_000),  # noqa: B008
        init: Callable[[], Loaded] | None = None,
        recovered: bool = True,
    ) -> None:
        self.learner, self.init = learner, init
        super().__init__(sets, broker, checkpoint_every=3, live=live, recovered=recovered)

    def make(self, faults: Faults | None = None, *, with_checkpoints: bool = True) -> None:
        """A new process over the broker, not recovered yet."""
        super().make(faults, with_checkpoints=with_checkpoints)
        self.loop = loop_of(self.ports, self.sets, self.learner, live=self.live, beginning=self._beginning())

    def _beginning(self) -> Beginning:
        def offsets() -> Mapping[TopicPartition, int]:
            return {} if self.init is None else offsets_of(self.init())

        return Beginning(start=offsets, init=self.init, make_under=under(self.sets))


def offsets_of(loaded: Loaded) -> dict[TopicPartition, int]:
    """Where the run stopped whose state this is."""
    parts = ((name.rpartition("/"), at) for name, at in loaded[1]["positions"][""]["next_by_name"].items())
    return {(topic, int(number)): at for (topic, _, number), at in parts}


def under(sets: Sequence[str]) -> Callable[[Mapping[str, Any]], Any]:
    """Makes a pipeline of settings that a ledger kept."""
    return lambda kept: assemble.pipeline_of(config.with_semantic(settings_of(*sets), kept))


def loop_of(ports: Ports, sets: Sequence[str], learner: str, *, live: Live | None, beginning: Beginning) -> Loop:
    """A loop that says in the ledger which settings it runs under."""
    settings = settings_of(*sets)
    genesis = {"mode": "laws", "semantic": config.semantic(settings)}
    digest = config.semantic_digest(settings)[:16]
    identity = Identity(digest, "one build", learner, genesis, session=f"a start of {learner}")
    return Loop(
        lambda: assemble.pipeline_of(settings),
        ports,
        identity,
        max_records=settings.tick.max_records,
        live=live,
        beginning=beginning,
    )


# ---- what happens in a life


def spread(chunk: Chunk) -> Chunk:
    """The chunk with every other event of partition 1 in the new one."""
    return Chunk(
        chunk.now_ms,
        tuple(
            r._replace(partition=NEW[1]) if (r.topic, r.partition) == (Topic.EVENTS, 1) and n % 2 else r
            for n, r in enumerate(chunk.records)
        ),
    )


def events_of_lives() -> Iterator[Callable[[Lives], None]]:
    """What happens to a pipeline, one after the other: records, a new partition, a start under other settings."""
    for nth, chunk in enumerate(STREAM):
        if nth == APPEARS:
            yield lambda world: world.broker.add_partition(*NEW)
        if nth == CHANGES:
            yield change_settings
        arriving = spread(chunk) if nth >= APPEARS else chunk
        yield lambda world, arriving=arriving: world.arrive(arriving)  # type: ignore[misc]


def change_settings(world: Lives) -> None:
    """Start again under other settings."""
    world.sets = CHANGED
    world.start()


def lived(faults: Faults | None = None, world: Lives | None = None) -> tuple[Lives, int]:
    """All that happens; after a crash the next process goes on. Returns the world and how many crashes there were."""
    world, n_crashes = world or Lives(recovered=False), 0
    steps: Iterable[Callable[[Lives], None]] = [lambda w: w.start(faults), *events_of_lives(), drain]
    for step in steps:
        try:
            step(world)
            world.catch_up()
        except Crash:
            n_crashes += 1
            world.start()
            world.catch_up()
    return world, n_crashes


@lru_cache
def uninterrupted() -> tuple[Lives, tuple[str, ...]]:
    """The lives without a crash, to be looked at only, and the points that their stores passed in order."""
    faults = Faults()
    return lived(faults)[0], tuple(faults.order)


def copy_of(world: Lives) -> Lives:
    """What outlives the processes of a world, to be damaged; nothing runs over it yet."""
    return Lives(world.sets, copy.deepcopy(world.broker), recovered=False)


def drain(world: Lives) -> None:
    """Cut the draining tick, once."""
    if not world.loop.finished:
        world.loop.step(drain=True, cut_at_ms=world.clock.now_ms())


# ---- what must hold


def unbroken(ledger: Sequence[Output], *, first: int = 0, chain: str = GENESIS_CHAIN) -> None:
    """No gap and an intact chain."""
    for n, entry in enumerate(ledger, first):
        said = msgspec.json.decode(entry.value or b"")
        assert (said["n"], said["prev"]) == (n, chain)
        chain = chain_of(entry.value or b"")


def taken_once(entries: Iterable[dict[str, Any]], start: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Where each partition was read to; each range begins where the one before it ended."""
    ranges = [r for entry in entries if entry["kind"] == "tick" for r in entry["tick"]["ranges"]]
    at = dict(start)
    for topic, number, first, after, count, _ in ranges:
        assert (first, count) == (at.get((topic, number), 0), after - first)
        at[topic, number] = after
    return at


def folded_again(world: Lives, checkpoint: str | None = None) -> Lives:
    """Another process that folds the ledger, from a checkpoint or from its beginning, and claims nothing."""
    again = Lives(world.sets, world.broker, live=None, init=world.init, recovered=False)
    again.make(with_checkpoints=False)
    if checkpoint is not None:
        again.ports.checkpoints._broker.checkpoints[checkpoint] = world.broker.checkpoints[checkpoint]  # type: ignore[attr-defined]
    again.loop.recover()
    return again


def sound(world: Lives, *, start: Mapping[TopicPartition, int] | None = None) -> None:
    """The state is the fold of the ledger, and the ledger took every input once."""
    ledger = world.outputs()[Topic.LEDGER]
    first = world.entries()[0]
    unbroken(ledger, first=first["n"], chain=first["prev"])
    taken = taken_once(world.entries(), start or {})
    assert taken == {partition: world.broker.end_offset(partition) for partition in taken}
    assert taken.keys() == {p for p, log in world.broker.inputs.items() if log}
    assert different(world.pipeline, folded_again(world).pipeline) == []


# ---- a replay that follows


class Follower:
    """A replay that follows the ledger of a world, with a ledger and output topics of its own.

    Args:
        world: whose ledger and inputs.
        sets: the settings that it would run under if the ledger did not say others.
    """

    def __init__(self, world: Lives, sets: Sequence[str] = CHANGED) -> None:
        self._world, self._sets = world, sets
        self.broker = MemoryBroker()
        self.faults: Faults | None = None
        self.weights: type[MemoryWeights] = MemoryWeights

    def run(self, *, publish: Callable[[Mapping[str, Any]], bool] = lambda entry: True) -> Follower:
        """One start: recover, and follow to the end."""
        ports = Ports(
            MemorySource(self._world.broker),
            MemoryPublisher(self.broker, faults=self.faults),
            MemoryCheckpoints(self.broker, faults=self.faults),
            self.weights(self.broker, faults=self.faults),
        )
        beginning = Beginning(make_under=under(self._sets), follows=True)
        self.loop = loop_of(ports, self._sets, "replay", live=None, beginning=beginning)
        self.loop.recover()
        entries = [(at, output.value or b"") for at, output in self._world.broker.read_committed(Topic.LEDGER)]
        for _ in follow(self.loop, ports.source, entries, genesis={"mode": "replay"}, publish=publish):
            pass
        return self

    def outputs(self) -> dict[str, list[Output]]:
        """What a read_committed reader of its topics sees."""
        return {topic: self.broker.outputs(topic) for topic in OUTPUT_TOPICS}
