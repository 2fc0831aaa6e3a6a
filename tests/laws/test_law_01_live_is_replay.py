"""Law 1: live = replay. The same ledger gives byte-identical effects and state."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.events import Output, Record, Topic
from stream_rec.stream.ledger import GENESIS_CHAIN, chain_of
from stream_rec.worker import Worker
from tests.laws.world import LAW, MINUTE_MS, Folded, World, different, pipeline_of, rng_of, shop_stream


def live(seed: int, n_polls: int) -> World:
    """A worker whose records come in dribs and drabs, in an order of arrival that `seed` chooses."""
    rng, world = rng_of(seed), World(n_polls=n_polls, checkpoint_every=0)
    worker = Worker(
        world.loop, world.clock, max_wait_ms=int(rng.integers(50, 5_000)), checkpoint_every_ms=20 * MINUTE_MS
    )
    for chunk in shop_stream():
        records, at = list(chunk.records), 0
        world.clock.set(chunk.now_ms)
        while at < len(records):
            n = int(rng.integers(1, 90))
            world.broker.extend(records[at : at + n])
            at += n
            for _ in range(int(rng.integers(0, 3))):
                worker.turn()
        worker.catch_up()
    worker.stop()
    return world


@settings(LAW, max_examples=6)
@given(seed=st.integers(0, 2**32), n_polls=st.integers(0, 6))
def test_a_fresh_pipeline_replays_the_ledger_of_a_live_run_to_the_same_bytes(seed: int, n_polls: int) -> None:
    world = live(seed, n_polls)
    assert world.pipeline.learner.versions.progress.n_promotions >= 2
    written = world.broker.outputs(Topic.LEDGER)

    replay = World(broker=world.broker)
    replay.start(with_checkpoints=False)

    assert different(world.pipeline, replay.pipeline) == []
    assert world.broker.outputs(Topic.LEDGER) == written


def test_folding_the_ledger_by_hand_gives_every_output_record_byte_for_byte() -> None:
    world = live(seed=11, n_polls=2)
    folded = Folded(pipeline_of())
    folded.pipeline.begin(dict.fromkeys(world.broker.inputs, 0))
    for tick, records in world.ticks():
        folded.fold(tick, records)
    said: dict[str, list[Output]] = {
        topic: [] for topic in (Topic.SLATES, Topic.VERSIONS, Topic.DEAD_LETTERS, Topic.METRICS)
    }
    for effects in folded.effects:
        for output in effects.outputs:
            said[output.topic].append(output)
    committed = world.outputs()
    assert {topic: committed[topic] == outputs for topic, outputs in said.items()} == dict.fromkeys(said, True)
    assert different(world.pipeline, folded.pipeline) == ["positions"], (
        "only the ledger's own chain is not folded by hand"
    )


def test_the_ledger_has_no_gap_and_an_intact_chain() -> None:
    world = live(seed=12, n_polls=1)
    chain = GENESIS_CHAIN
    for n, (entry, output) in enumerate(zip(world.entries(), world.broker.outputs(Topic.LEDGER), strict=True)):
        assert (entry["n"], entry["prev"]) == (n, chain)
        chain = chain_of(output.value or b"")
    taken: dict[tuple[str, int], int] = {}
    for entry in world.entries()[1:]:
        for topic, partition, first, after, count, _ in entry["tick"]["ranges"]:
            assert first == taken.get((topic, partition), 0)
            assert count == after - first
            taken[topic, partition] = after
    assert taken == {p: world.broker.end_offset(p) for p in taken}


def test_how_records_were_polled_changes_nothing_but_where_ticks_end() -> None:
    """The order of processing is that of the records, not that of their arrival at the worker."""

    def order(seed: int) -> list[tuple[str, int, int]]:
        world = World()
        rng = rng_of(seed)
        world.broker.extend(r for chunk in shop_stream() for r in chunk.records)
        source, loop, taken = world.ports.source, world.loop, []
        world.on_commit = lambda tick, effects: None
        fold = world.pipeline.fold

        def watched(tick: object, records: list[Record]) -> object:
            taken.extend((r.topic, r.partition, r.offset) for r in records)
            return fold(tick, records)  # type: ignore[arg-type]

        world.pipeline.fold = watched  # type: ignore[method-assign,assignment]
        loop._max_records = int(rng.integers(20, 200))
        now_ms = shop_stream()[-1].now_ms
        while loop.step(cut_at_ms=now_ms):
            pass
        assert source.lag() == 0
        return taken

    assert order(1) == order(2)
    assert len(np.unique([o for _, _, o in order(1)])) > 100
