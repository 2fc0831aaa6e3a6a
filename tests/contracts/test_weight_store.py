"""What every WeightStore promises: a version is named durable once, when it can be read back bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from stream_rec.errors import JobFailed
from stream_rec.io.faults import Crash, Faults
from stream_rec.io.folder import FolderWeights
from stream_rec.io.memory import MemoryWeights
from stream_rec.io.memory_broker import MemoryBroker
from stream_rec.ports import WeightStore

TENSORS = {"w": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), "bias": np.array([0.5, -0.0, np.inf])}


class Place(Protocol):
    """Storage that outlives a store."""

    def open(self, faults: Faults | None = None) -> WeightStore: ...


class InMemory:
    def __init__(self, _folder: Path) -> None:
        self.broker = MemoryBroker()

    def open(self, faults: Faults | None = None) -> WeightStore:
        return MemoryWeights(self.broker, faults=faults)


class InFolder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "weights"

    def open(self, faults: Faults | None = None) -> WeightStore:
        return FolderWeights(self.folder, synchronous=True, faults=faults)


@pytest.fixture(params=[InMemory, InFolder])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    made: Place = request.param(tmp_path)
    return made


def test_a_durable_version_is_read_back_bit_for_bit(place: Place) -> None:
    store = place.open()
    store.put("v1-abc", TENSORS)
    assert list(store.durable()) == ["v1-abc"]
    read = store.get("v1-abc")
    assert {n: (a.dtype, a.shape, a.tobytes()) for n, a in read.items()} == {
        n: (a.dtype, a.shape, a.tobytes()) for n, a in TENSORS.items()
    }


def test_a_version_is_named_durable_once_and_in_the_order_put(place: Place) -> None:
    store = place.open()
    store.put("v2-b", TENSORS)
    store.put("v1-a", TENSORS)
    assert list(store.durable()) == ["v2-b", "v1-a"]
    assert list(store.durable()) == []


def test_a_version_put_again_is_named_durable_again(place: Place) -> None:
    store = place.open()
    for _ in range(2):
        store.put("v1-a", TENSORS)
        assert list(store.durable()) == ["v1-a"]


def test_what_changes_after_the_put_is_not_stored(place: Place) -> None:
    store = place.open()
    mine = {"w": np.zeros(4, np.float32)}
    store.put("v1-a", mine)
    mine["w"] += 1
    store.durable()
    assert not store.get("v1-a")["w"].any()


def test_a_column_major_tensor_keeps_its_values(place: Place) -> None:
    store = place.open()
    tensor = np.asfortranarray(np.arange(6).reshape(2, 3))
    store.put("v1-a", {"t": tensor})
    store.durable()
    assert np.array_equal(store.get("v1-a")["t"], tensor)


def test_a_new_store_over_the_same_place_reads_what_was_durable(place: Place) -> None:
    store = place.open()
    store.put("v1-a", TENSORS)
    store.durable()
    again = place.open()
    assert list(again.durable()) == []
    assert set(again.get("v1-a")) == set(TENSORS)


def test_an_unknown_version_is_refused(place: Place) -> None:
    with pytest.raises(JobFailed, match="v9-x"):
        place.open().get("v9-x")


def test_a_crash_in_mid_write_leaves_no_version(place: Place) -> None:
    faults = Faults()
    faults.crash_at("weights_mid")
    with pytest.raises(Crash):
        place.open(faults).put("v1-a", TENSORS)
    again = place.open()
    assert list(again.durable()) == []
    with pytest.raises(JobFailed):
        again.get("v1-a")
