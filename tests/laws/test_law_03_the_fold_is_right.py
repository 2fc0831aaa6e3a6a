"""Law 3, second half: what the loop folded equals a batch computation over the log, by other code."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np

from stream_rec.events import MISSING, Kind, Topic
from stream_rec.stream.privacy import Pseudonymiser
from tests.laws.batch import Batch
from tests.laws.world import KEY, ROOMY, World, settings_of, shop_stream, slates_of


@lru_cache
def both() -> tuple[World, Batch]:
    """The loop over a roomy world, and the batch over its log in ledger order."""
    world = World(ROOMY)
    published: dict[int, list[dict[str, object]]] = {}
    world.on_commit = lambda tick, effects: published.update({tick.number: slates_of(effects.outputs)})
    world.play(shop_stream(ROOMY))
    genesis, *entries = world.entries()
    batch = Batch(KEY.encode(), [p for topic, p, _ in genesis["start"] if topic == Topic.EVENTS])
    for entry in entries:
        batch.tick(entry["tick"]["ranges"], entry["tick"]["cut_at_ms"], world.broker.inputs, published[entry["n"]])
    return world, batch


def test_counts_by_outcome_and_reason() -> None:
    world, batch = both()
    reasons = world.pipeline.facts.accounting.reasons
    said = Counter({(o, r): n for o, table in reasons.items() for r, n in table.items() if o != "repaired"})
    assert said == batch.outcomes
    totals: Counter[str] = Counter()
    for (outcome, _), n in batch.outcomes.items():
        totals[outcome] += n
    assert {name: world.pipeline.facts.accounting.totals[name] for name in totals} == totals
    assert min(totals.values()) > 0
    assert len(totals) == 5


def test_the_dedupe_set() -> None:
    world, batch = both()
    event = Pseudonymiser(KEY.encode()).event
    dedupe = world.pipeline.facts.dedupe
    assert len(batch.seen) == dedupe.n_admitted
    assert dedupe.admit_many([event(event_id) for event_id in sorted(batch.seen)]) == [False] * len(batch.seen)


def test_the_watermark() -> None:
    world, batch = both()
    marks = world.pipeline.facts.watermarks
    assert marks.global_ms == batch.watermark_ms
    assert {p: int(marks.newest_ms[p]) for p in batch.newest_ms} == batch.newest_ms


def test_the_window_is_the_newest_positives_minus_what_was_refunded() -> None:
    world, batch = both()
    facts, settings = world.pipeline.facts, settings_of(*ROOMY)
    window = facts.window
    content = sorted(
        (
            "" if user == MISSING else facts.users.key[user].tobytes().hex(),
            facts.items.ids[window.item[row]],
            int(window.at_ms[row]),
            Kind(window.kind[row]).name.lower(),
        )
        for row in window.rows().tolist()
        for user in [int(window.user[row])]
    )
    wanted = batch.window(settings.window.capacity, settings.window.length_ms)
    # Which of those stay that tie for the oldest is the window's own business: it tells them apart by digest.
    oldest_ms = min(row[2] for row in wanted)
    assert [row for row in content if row[2] > oldest_ms] == [row for row in wanted if row[2] > oldest_ms]
    assert set(content) <= set(batch.window(len(batch.positives), settings.window.length_ms))
    assert len(content) == len(wanted) > 100
    assert len(batch.positives) > 2 * settings.window.capacity


def test_joins_and_exposures() -> None:
    world, batch = both()
    counts = world.pipeline.facts.joiner.counts()
    words = ("exact", "implied", "weak", "none", "exposed", "repeated", "unknown_decision", "no_user")
    assert {word: counts[word] for word in words} == {word: batch.joins[word] for word in words}
    assert min(counts[word] for word in ("exact", "implied", "weak", "none", "exposed", "repeated")) > 0


def test_every_user_s_history_newest_first_without_what_was_refunded() -> None:
    world, batch = both()
    facts = world.pipeline.facts
    assert facts.users.n_users >= len(batch.histories)
    n_back = 0
    for key, acts in batch.histories.items():
        row = facts.users.find(bytes.fromhex(key))
        got = facts.histories.gather(np.array([facts.users.last_row[row]]), 1_000)
        there = got.item[0] != MISSING
        said = [
            (facts.items.ids[item], at_ms, Kind(kind).name.lower())
            for item, at_ms, kind in zip(
                got.item[0][there], got.at_ms[0][there].tolist(), got.kind[0][there], strict=True
            )
        ]
        assert said == [(a.item, a.at_ms, a.type) for a in reversed(acts) if a.live]
        n_back += sum(not a.live for a in acts)
    assert n_back > 10
    assert sum(map(len, batch.histories.values())) == facts.histories.next_serial


def test_the_item_table() -> None:
    world, batch = both()
    items = world.pipeline.facts.items
    table = {
        items.ids[row]: (items.titles[row], bool(items.in_stock[row]), bool(items.listed[row]), bool(items.named[row]))
        for row in range(items.n)
    }
    assert table == {
        i: (said["title"], said["stock"], said["listed"], said["named"]) for i, said in batch.items.items()
    }
    assert len({row[1:] for row in table.values()}) >= 3, "some sold out, some delisted, some never named"
