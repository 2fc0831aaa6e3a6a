"""What every Publisher promises: a tick's outputs and its ledger entry are all there or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from stream_rec.effects import Effects
from stream_rec.events import Output, Topic
from stream_rec.io.faults import COMMIT_POINTS, Crash, Faults
from stream_rec.io.folder import FolderPublisher
from stream_rec.io.memory import MemoryPublisher
from stream_rec.io.memory_broker import MemoryBroker
from stream_rec.io.run_folder import committed_lines
from stream_rec.ports import Publisher
from stream_rec.stream.ledger import GENESIS_CHAIN, chain_of, encode


class Place(Protocol):
    """Storage that outlives a publisher."""

    def open(self, faults: Faults | None = None) -> Publisher: ...

    def topic(self, topic: str) -> list[bytes]: ...


class InMemory:
    def __init__(self, _folder: Path) -> None:
        self.broker = MemoryBroker()

    def open(self, faults: Faults | None = None) -> Publisher:
        return MemoryPublisher(self.broker, faults=faults)

    def topic(self, topic: str) -> list[bytes]:
        return [output.value or b"" for output in self.broker.outputs(topic)]


class InFolder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "run"

    def open(self, faults: Faults | None = None) -> Publisher:
        return FolderPublisher(self.folder, faults=faults)

    def topic(self, topic: str) -> list[bytes]:
        return list(committed_lines(self.folder, topic))


@pytest.fixture(params=[InMemory, InFolder])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    made: Place = request.param(tmp_path)
    return made


def outputs_of(tick: int) -> list[Output]:
    """Three outputs over two topics."""
    return [
        Output(Topic.SLATES, b"u1", b'{"user_key":"u1","tick":%d}' % tick),
        Output(Topic.SLATES, b"u2", b'{"user_key":"u2","tick":%d}' % tick),
        Output(Topic.DEAD_LETTERS, b"", b'{"offset":%d}' % tick),
    ]


def run(publisher: Publisher, n_ticks: int) -> None:
    """Commit ticks until the ledger has `n_ticks`, going on from what it holds."""
    ledger = publisher.read_ledger()
    prev = chain_of(ledger[-1][1]) if ledger else GENESIS_CHAIN
    for tick in range(len(ledger), n_ticks):
        outputs = outputs_of(tick)
        entry = encode(tick, prev, "tick", {"outputs": Effects(outputs).sizes()})
        publisher.commit(outputs, entry)
        prev = chain_of(entry)


def everything(place: Place) -> dict[str, list[bytes]]:
    return {topic: place.topic(topic) for topic in (Topic.SLATES, Topic.DEAD_LETTERS, Topic.LEDGER)}


def test_a_new_ledger_is_empty(place: Place) -> None:
    assert list(place.open().read_ledger()) == []


def test_commit_returns_the_offset_at_which_the_entry_is_read(place: Place) -> None:
    publisher = place.open()
    first = encode(0, GENESIS_CHAIN, "genesis", {})
    second = encode(1, chain_of(first), "tick", {})
    offsets = [publisher.commit([], first), publisher.commit([], second)]
    assert list(publisher.read_ledger()) == list(zip(offsets, [first, second], strict=True))


def test_the_ledger_is_read_from_an_offset_on(place: Place) -> None:
    publisher = place.open()
    run(publisher, 5)
    whole = list(publisher.read_ledger())
    assert list(publisher.read_ledger(whole[3][0])) == whole[3:]
    assert list(publisher.read_ledger(whole[-1][0] + 1)) == []


def test_offsets_rise(place: Place) -> None:
    publisher = place.open()
    run(publisher, 5)
    offsets = [offset for offset, _ in publisher.read_ledger()]
    assert offsets == sorted(set(offsets))


def test_outputs_of_a_topic_keep_their_order(place: Place) -> None:
    publisher = place.open()
    run(publisher, 2)
    publisher.close()
    assert place.topic(Topic.SLATES) == [o.value for t in (0, 1) for o in outputs_of(t) if o.topic == Topic.SLATES]


def test_a_reopened_place_holds_what_was_committed(place: Place) -> None:
    publisher = place.open()
    run(publisher, 3)
    before = list(publisher.read_ledger())
    publisher.close()
    assert list(place.open().read_ledger()) == before


def test_going_on_after_a_reopening_equals_never_stopping(place: Place, tmp_path: Path) -> None:
    first = place.open()
    run(first, 3)
    first.close()
    run(place.open(), 6)
    other = type(place)(tmp_path / "other")  # type: ignore[call-arg]
    run(other.open(), 6)
    assert everything(place) == everything(other)


@pytest.mark.parametrize("point", [p for p in COMMIT_POINTS if p != "after_commit"])
def test_a_crash_before_the_commit_leaves_nothing_of_the_tick(place: Place, point: str) -> None:
    faults = Faults()
    faults.crash_at(point, nth=3)
    publisher = place.open(faults)
    with pytest.raises(Crash):
        run(publisher, 5)
    publisher.close()
    place.open().close()
    n_whole = len(place.topic(Topic.LEDGER))
    assert n_whole == (1 if point == "between_outputs" and isinstance(place, InMemory) else 2)
    assert len(place.topic(Topic.SLATES)) == 2 * n_whole
    assert len(place.topic(Topic.DEAD_LETTERS)) == n_whole


def test_a_crash_after_the_commit_leaves_the_whole_tick(place: Place) -> None:
    faults = Faults()
    faults.crash_at("after_commit", nth=3)
    publisher = place.open(faults)
    with pytest.raises(Crash):
        run(publisher, 5)
    publisher.close()
    assert len(place.topic(Topic.LEDGER)) == 3
    assert len(place.topic(Topic.SLATES)) == 6


def test_a_crash_at_any_step_and_a_restart_give_the_uninterrupted_bytes(place: Place, tmp_path: Path) -> None:
    faults = Faults()
    reference = type(place)(tmp_path / "reference")  # type: ignore[call-arg]
    run(reference.open(faults), 3)
    for step in range(1, len(faults.order) + 1):
        crashing = Faults()
        crashing.crash_at_step(step)
        broken = type(place)(tmp_path / f"step{step}")  # type: ignore[call-arg]
        publisher = broken.open(crashing)
        with pytest.raises(Crash):
            run(publisher, 3)
        publisher.close()
        again = broken.open()
        run(again, 3)
        again.close()
        assert everything(broken) == everything(reference), faults.order[step - 1]
