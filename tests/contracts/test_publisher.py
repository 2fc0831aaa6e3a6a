"""What every Publisher promises: a tick's outputs and its ledger entry are all there or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest

from stream_rec.effects import Effects
from stream_rec.errors import Fenced, InputGone, JobFailed, Unsettled
from stream_rec.events import Output, Topic
from stream_rec.io.faults import COMMIT_POINTS, Crash, Faults
from stream_rec.io.folder import FolderPublisher
from stream_rec.io.memory import MemoryPublisher
from stream_rec.io.memory_broker import MemoryBroker
from stream_rec.io.run_folder import committed_lines
from stream_rec.ports import Publisher
from stream_rec.stream.ledger import GENESIS_CHAIN, chain_of, encode
from tests.contracts.kafka_place import KafkaPlace
from tests.integration.broker import Broker


class Place(Protocol):
    """Storage that outlives a publisher."""

    def open(self, faults: Faults | None = None) -> Publisher: ...

    def topic(self, topic: str) -> list[bytes]: ...

    def settle(self) -> None:
        """Return when readers see what was committed."""


NewPlace = Callable[[], Place]


class InMemory:
    def __init__(self) -> None:
        self.broker = MemoryBroker()

    def open(self, faults: Faults | None = None) -> Publisher:
        return MemoryPublisher(self.broker, faults=faults)

    def topic(self, topic: str) -> list[bytes]:
        return [output.value or b"" for output in self.broker.outputs(topic)]

    def settle(self) -> None:
        """They see it at once."""

    def forget_before(self, offset: int) -> None:
        self.broker.forget_before(Topic.LEDGER, offset)


class InFolder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "run"

    def open(self, faults: Faults | None = None) -> Publisher:
        return FolderPublisher(self.folder, faults=faults)

    def topic(self, topic: str) -> list[bytes]:
        return list(committed_lines(self.folder, topic))

    def settle(self) -> None:
        """They see it at once."""


MEMORY, FOLDER, KAFKA = "memory", "folder", "kafka"
ON_KAFKA = pytest.param(KAFKA, marks=pytest.mark.kafka)
SLOW_ON_KAFKA = pytest.param(KAFKA, marks=[pytest.mark.kafka, pytest.mark.slow])


@pytest.fixture(params=[MEMORY, FOLDER, ON_KAFKA])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def new_place(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewPlace]:
    """Makes empty places."""
    numbers, made = itertools.count(), list[KafkaPlace]()

    def new() -> Place:
        if kind == MEMORY:
            return InMemory()
        if kind == FOLDER:
            return InFolder(tmp_path / str(next(numbers)))
        broker: Broker = request.getfixturevalue("broker")
        made.append(KafkaPlace(broker.bootstrap, f"{request.getfixturevalue('names')}-{next(numbers)}"))
        return made[-1]

    yield new
    for place in made:
        place.close()


@pytest.fixture
def place(new_place: NewPlace) -> Place:
    return new_place()


def opened(place: Place, faults: Faults | None = None) -> Publisher:
    """A publisher that writes alone."""
    publisher = place.open(faults)
    publisher.take_over()
    return publisher


def outputs_of(tick: int) -> list[Output]:
    """Three outputs over two topics."""
    return [
        Output(Topic.SLATES, b"u1", b'{"user_key":"u1","tick":%d}' % tick),
        Output(Topic.SLATES, b"u2", b'{"user_key":"u2","tick":%d}' % tick),
        Output(Topic.DEAD_LETTERS, b"", b'{"offset":%d}' % tick),
    ]


def run(place: Place, publisher: Publisher, n_ticks: int) -> None:
    """Commit ticks until the ledger has `n_ticks`, going on from what it holds; return when readers see them."""
    ledger = list(publisher.read_ledger())
    prev = chain_of(ledger[-1][1]) if ledger else GENESIS_CHAIN
    for tick in range(len(ledger), n_ticks):
        outputs = outputs_of(tick)
        entry = encode(tick, prev, "tick", {"outputs": Effects(outputs).sizes()})
        publisher.commit(outputs, entry)
        place.settle()
        prev = chain_of(entry)


def everything(place: Place) -> dict[str, list[bytes]]:
    return {topic: place.topic(topic) for topic in (Topic.SLATES, Topic.DEAD_LETTERS, Topic.LEDGER)}


def test_a_new_ledger_is_empty(place: Place) -> None:
    assert list(place.open().read_ledger()) == []


def test_commit_returns_the_offset_at_which_the_entry_is_read(place: Place) -> None:
    publisher = opened(place)
    first = encode(0, GENESIS_CHAIN, "genesis", {})
    second = encode(1, chain_of(first), "tick", {"outputs": Effects(outputs_of(1)).sizes()})
    offsets = [publisher.commit([], first), publisher.commit(outputs_of(1), second)]
    place.settle()
    assert list(publisher.read_ledger()) == list(zip(offsets, [first, second], strict=True))


def test_the_ledger_is_read_from_an_offset_on(place: Place) -> None:
    publisher = opened(place)
    run(place, publisher, 5)
    whole = list(publisher.read_ledger())
    assert list(publisher.read_ledger(whole[3][0])) == whole[3:]
    assert list(publisher.read_ledger(whole[-1][0] + 1)) == []


def test_the_ledger_can_be_read_again_in_the_middle_of_a_reading(place: Place) -> None:
    publisher = opened(place)
    run(place, publisher, 5)
    whole = list(publisher.read_ledger())
    assert next(iter(publisher.read_ledger())) == whole[0]
    assert next(iter(publisher.read_ledger(whole[2][0]))) == whole[2]
    assert list(publisher.read_ledger()) == whole


def test_offsets_rise(place: Place) -> None:
    publisher = opened(place)
    run(place, publisher, 5)
    offsets = [offset for offset, _ in publisher.read_ledger()]
    assert offsets == sorted(set(offsets))


def test_outputs_of_a_topic_keep_their_order(place: Place) -> None:
    publisher = opened(place)
    run(place, publisher, 2)
    publisher.close()
    assert place.topic(Topic.SLATES) == [o.value for t in (0, 1) for o in outputs_of(t) if o.topic == Topic.SLATES]


def test_a_reopened_place_holds_what_was_committed(place: Place) -> None:
    publisher = opened(place)
    run(place, publisher, 3)
    before = list(publisher.read_ledger())
    publisher.close()
    assert list(place.open().read_ledger()) == before


def test_going_on_after_a_reopening_equals_never_stopping(place: Place, new_place: NewPlace) -> None:
    first = opened(place)
    run(place, first, 3)
    first.close()
    run(place, opened(place), 6)
    other = new_place()
    run(other, opened(other), 6)
    assert everything(place) == everything(other)


def test_taking_over_again_goes_on(place: Place) -> None:
    publisher = opened(place)
    run(place, publisher, 2)
    publisher.take_over()
    run(place, publisher, 4)
    assert len(place.topic(Topic.LEDGER)) == 4


def test_only_the_newest_that_took_over_can_commit(place: Place) -> None:
    old = opened(place)
    run(place, old, 2)
    try:
        new = opened(place)
    except JobFailed:
        assert isinstance(place, InFolder), "the lock of a folder keeps the new one out"
        return
    with pytest.raises((Fenced, Unsettled)) as refused:
        run(place, old, 3)
    assert isinstance(refused.value, Fenced) or refused.value.fenced
    assert everything(place)[Topic.LEDGER] == [entry for _, entry in new.read_ledger()]
    run(place, new, 5)
    assert len(place.topic(Topic.LEDGER)) == 5
    assert len(place.topic(Topic.SLATES)) == 10


def test_one_that_was_fenced_can_take_over_again(place: Place) -> None:
    if isinstance(place, InFolder):
        pytest.skip("the lock of a folder keeps a second one out")
    one, other = opened(place), opened(place)
    run(place, other, 2)
    one.take_over()
    run(place, one, 3)
    with pytest.raises((Fenced, Unsettled)):
        run(place, other, 4)
    assert len(place.topic(Topic.LEDGER)) == 3


def test_looking_at_a_ledger_fences_nobody(place: Place) -> None:
    """A stand-by reads before it takes over."""
    if isinstance(place, InMemory):
        pytest.skip("making one takes over in memory")
    writing = opened(place)
    run(place, writing, 2)
    with suppress(JobFailed):
        assert len(list(place.open().read_ledger())) == 2
    run(place, writing, 3)
    assert len(place.topic(Topic.LEDGER)) == 3


@pytest.mark.parametrize("kind", [MEMORY, ON_KAFKA], indirect=True)
def test_an_entry_that_retention_deleted_is_gone(place: InMemory | KafkaPlace) -> None:
    publisher = opened(place)
    run(place, publisher, 5)
    whole = list(publisher.read_ledger())
    place.forget_before(whole[3][0])
    with pytest.raises(InputGone, match=rf"in front of offset {whole[3][0]} are gone"):
        list(publisher.read_ledger(whole[2][0]))
    assert list(publisher.read_ledger(whole[3][0])) == whole[3:]
    assert list(publisher.read_ledger()) == whole[3:], "0 begins with the oldest there is"


@pytest.mark.parametrize("point", [p for p in COMMIT_POINTS if p != "after_commit"])
def test_a_crash_before_the_commit_leaves_nothing_of_the_tick(place: Place, point: str) -> None:
    faults = Faults()
    faults.crash_at(point, nth=3)
    publisher = opened(place, faults)
    with pytest.raises(Crash):
        run(place, publisher, 5)
    publisher.close()
    after = opened(place)
    after.close()
    n_whole = len(place.topic(Topic.LEDGER))
    # A folder appends a topic at a time, so that it has one point a tick between its outputs and not two.
    assert n_whole == (1 if point == "between_outputs" and not isinstance(place, InFolder) else 2)
    assert len(place.topic(Topic.SLATES)) == 2 * n_whole
    assert len(place.topic(Topic.DEAD_LETTERS)) == n_whole


def test_a_crash_after_the_commit_leaves_the_whole_tick(place: Place) -> None:
    faults = Faults()
    faults.crash_at("after_commit", nth=3)
    publisher = opened(place, faults)
    with pytest.raises(Crash):
        run(place, publisher, 5)
    publisher.close()
    place.settle()
    assert len(place.topic(Topic.LEDGER)) == 3
    assert len(place.topic(Topic.SLATES)) == 6


@pytest.mark.parametrize("kind", [MEMORY, FOLDER, SLOW_ON_KAFKA], indirect=True)
def test_a_crash_at_any_step_and_a_restart_give_the_uninterrupted_bytes(kind: str, new_place: NewPlace) -> None:
    faults, reference, n_ticks = Faults(), new_place(), 2 if kind == KAFKA else 3
    run(reference, opened(reference, faults), n_ticks)
    for step in range(1, len(faults.order) + 1):
        crashing = Faults()
        crashing.crash_at_step(step)
        broken = new_place()
        publisher = opened(broken, crashing)
        with pytest.raises(Crash):
            run(broken, publisher, n_ticks)
        publisher.close()
        again = opened(broken)
        run(broken, again, n_ticks)
        again.close()
        assert everything(broken) == everything(reference), faults.order[step - 1]
