"""The in-memory broker behaves as the real one does where the worker leans on it."""

from __future__ import annotations

import pytest

from stream_rec.errors import Fenced, InputGone
from stream_rec.events import Output, Record, Topic
from stream_rec.io.faults import Crash, Faults
from stream_rec.io.memory import MemoryCheckpoints, MemoryPublisher, MemorySource, MemoryWeights
from stream_rec.io.memory_broker import MemoryBroker

EVENTS = (Topic.EVENTS, 0)
SLATE = Output(Topic.SLATES, b"u", b"{}")


def filled(n: int) -> MemoryBroker:
    broker = MemoryBroker()
    for i in range(n):
        broker.append(*EVENTS, b"%d" % i, timestamp_ms=i)
    return broker


def test_an_appended_record_goes_to_the_end_of_its_own_partition() -> None:
    broker = MemoryBroker({Topic.EVENTS: 2})
    broker.extend([Record(Topic.EVENTS, p, 77, 0, None, b"x") for p in (0, 1, 1)])
    assert [r.offset for r in broker.inputs[Topic.EVENTS, 1]] == [0, 1]


def test_a_live_topic_is_never_exhausted() -> None:
    broker = filled(2)
    source = MemorySource(broker)
    source.poll(EVENTS, 10)
    assert not source.exhausted(EVENTS)
    broker.end()
    assert source.exhausted(EVENTS)


def test_records_appended_later_are_polled_later() -> None:
    broker = filled(2)
    source = MemorySource(broker)
    source.poll(EVENTS, 10)
    broker.append(*EVENTS, b"late")
    assert [r.value for r in source.poll(EVENTS, 10)] == [b"late"]


def test_lag_counts_what_waits() -> None:
    source = MemorySource(filled(10))
    source.poll(EVENTS, 4)
    assert source.lag() == 6


def test_a_range_that_retention_has_passed_is_gone() -> None:
    broker = filled(10)
    broker.drop_before(EVENTS, 5)
    with pytest.raises(InputGone):
        MemorySource(broker).read_range(EVENTS, 3, 2)


def test_a_compacted_record_leaves_a_gap() -> None:
    broker = filled(5)
    broker.remove(EVENTS, 2)
    assert [r.offset for r in MemorySource(broker).poll(EVENTS, 10)] == [0, 1, 3, 4]


def test_the_future_is_what_the_look_ahead_said() -> None:
    source = MemorySource(filled(3), future=[(EVENTS, 1)])
    assert [source.in_future(EVENTS, n) for n in range(3)] == [False, True, False]


def test_a_new_publisher_fences_the_old_one() -> None:
    broker = MemoryBroker()
    old = MemoryPublisher(broker)
    MemoryPublisher(broker)
    with pytest.raises(Fenced):
        old.commit([SLATE], b"{}")


@pytest.mark.parametrize("point", ["before_outputs", "before_entry", "before_commit"])
def test_a_rival_that_claims_in_mid_commit_leaves_the_old_one_nothing(point: str) -> None:
    broker, faults = MemoryBroker(), Faults()
    faults.pause_at(point, lambda: MemoryPublisher(broker).commit([SLATE], b'{"by":"rival"}'))
    with pytest.raises(Fenced):
        MemoryPublisher(broker, faults=faults).commit([SLATE], b'{"by":"old"}')
    assert [o.value for o in broker.outputs(Topic.LEDGER)] == [b'{"by":"rival"}']
    assert broker.outputs(Topic.SLATES) == [SLATE]


def test_a_committed_reader_waits_before_an_open_transaction() -> None:
    broker, faults, seen = MemoryBroker(), Faults(), []
    publisher = MemoryPublisher(broker, faults=faults)
    publisher.commit([SLATE], b"0")
    faults.pause_at("before_commit", lambda: seen.append(broker.outputs(Topic.SLATES)), nth=2)
    publisher.commit([SLATE], b"1")
    assert seen == [[SLATE]]
    assert broker.outputs(Topic.SLATES) == [SLATE, SLATE]


def test_ledger_offsets_have_gaps_as_on_kafka() -> None:
    publisher = MemoryPublisher(MemoryBroker())
    assert [publisher.commit([], b"%d" % n) for n in range(3)] == [0, 2, 4]


def test_a_delayed_checkpoint_is_lost_in_a_crash_until_flushed() -> None:
    broker = MemoryBroker()
    MemoryCheckpoints(broker, delayed=True).save("1-a", {}, {})
    assert list(MemoryCheckpoints(broker).names()) == []
    store = MemoryCheckpoints(broker, delayed=True)
    store.save("1-a", {}, {})
    store.flush()
    assert list(MemoryCheckpoints(broker).names()) == ["1-a"]


def test_slow_weights_become_durable_after_their_polls() -> None:
    store = MemoryWeights(MemoryBroker(), n_polls=2)
    store.put("v1", {})
    assert [list(store.durable()) for _ in range(3)] == [[], [], ["v1"]]


def test_steps_count_over_all_points() -> None:
    faults = Faults()
    faults.crash_at_step(4)
    publisher = MemoryPublisher(MemoryBroker(), faults=faults)
    with pytest.raises(Crash, match="before_commit"):
        publisher.commit([SLATE, SLATE], b"{}")
    assert faults.order == ["before_outputs", "between_outputs", "before_entry", "before_commit"]
