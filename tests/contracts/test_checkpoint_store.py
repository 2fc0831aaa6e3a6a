"""What every CheckpointStore promises: what it gives back is what it was given, bit for bit, or it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from stream_rec.component import Component, Snapshot, digest
from stream_rec.errors import CheckpointRefused
from stream_rec.io.checkpoint import FolderCheckpoints
from stream_rec.io.faults import Crash, Faults
from stream_rec.io.memory import MemoryCheckpoints
from stream_rec.io.memory_broker import MemoryBroker
from stream_rec.ports import CheckpointStore


class Basket(Component):
    """A component with every sort of state."""

    columns = ("keys", "titles", "blobs", "prices", "flags", "scalar_like", "empty")
    scalars = ("n", "rates", "nested")

    def __init__(self) -> None:
        self.keys = np.zeros(4, "V16")
        self.titles: list[str] = []
        self.blobs: list[bytes] = []
        self.prices = np.zeros((4, 2), np.float32)
        self.flags = np.zeros(4, np.bool_)
        self.scalar_like = np.zeros((), np.int64)
        self.empty = np.zeros((0, 3), np.uint16)
        self.n = 0
        self.rates: list[float] = []
        self.nested: dict[str, Any] = {}


def filled() -> Basket:
    basket = Basket()
    basket.keys[1] = np.void(bytes(range(16)))
    basket.titles = ["", "a cup", "ü\N{HOT BEVERAGE}", "\ud83d", "line\nbreak\0"]
    basket.blobs = [b"", b"\xff\x00", b"x" * 40]
    basket.prices[2] = (math.nan, -0.0)
    basket.flags[3] = True
    basket.scalar_like[...] = 7
    basket.n = 2**62
    basket.rates = [0.1, math.inf, 1e-320]
    basket.nested = {"events/0": 3, "none": None}
    return basket


class Place(Protocol):
    """Storage that outlives a store."""

    def open(self, faults: Faults | None = None) -> CheckpointStore: ...

    def damage(self, name: str) -> None: ...


class InMemory:
    def __init__(self, _folder: Path) -> None:
        self.broker = MemoryBroker()

    def open(self, faults: Faults | None = None) -> CheckpointStore:
        return MemoryCheckpoints(self.broker, faults=faults)

    def damage(self, name: str) -> None:
        MemoryCheckpoints(self.broker).tear(name)


class InFolder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkpoints"

    def open(self, faults: Faults | None = None) -> CheckpointStore:
        return FolderCheckpoints(self.folder, keep=10, faults=faults)

    def damage(self, name: str) -> None:
        file = self.folder / name / "basket.safetensors"
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)


@pytest.fixture(params=[InMemory, InFolder])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    made: Place = request.param(tmp_path)
    return made


def save(store: CheckpointStore, name: str, components: dict[str, Snapshot] | None = None) -> None:
    snapshots = {"basket": filled().snapshot()} if components is None else components
    store.save(name, {"tick": int(name.split("-")[0]), "chain": "ab", "cut_at_ms": 5}, snapshots)
    store.flush()


def test_a_new_store_has_no_checkpoints(place: Place) -> None:
    assert list(place.open().names()) == []


def test_the_manifest_comes_back_as_it_was_given(place: Place) -> None:
    store = place.open()
    save(store, "7-ab")
    assert store.load("7-ab")[0] == {"tick": 7, "chain": "ab", "cut_at_ms": 5}
    assert store.manifest("7-ab") == {"tick": 7, "chain": "ab", "cut_at_ms": 5}


def test_a_manifest_that_is_not_there_is_refused(place: Place) -> None:
    with pytest.raises(CheckpointRefused):
        place.open().manifest("7-ab")


def test_every_sort_of_state_comes_back_bit_for_bit(place: Place) -> None:
    store = place.open()
    save(store, "7-ab")
    loaded = store.load("7-ab")[1]["basket"]
    given = filled().snapshot()
    assert set(loaded) == set(given)
    for name in Basket.columns:
        if isinstance(given[name], list):
            assert loaded[name] == given[name]
        else:
            assert (loaded[name].dtype, loaded[name].shape) == (given[name].dtype, given[name].shape)
            assert loaded[name].tobytes() == given[name].tobytes()
    assert loaded[""] == given[""]


def test_a_restored_component_has_the_digest_of_the_one_copied(place: Place) -> None:
    store, basket, fresh = place.open(), filled(), Basket()
    basket.titles.remove("\ud83d")
    save(store, "7-ab", {"basket": basket.snapshot()})
    fresh.restore(store.load("7-ab")[1]["basket"])
    assert digest(fresh.snapshot()) == digest(basket.snapshot())


def test_components_keep_their_names_and_order(place: Place) -> None:
    store = place.open()
    names = ["users", "model/ranker", "Ä", "items"]
    save(store, "1-ab", {name: filled().snapshot() for name in names})
    assert list(store.load("1-ab")[1]) == names


def test_a_restored_component_may_be_changed_without_touching_the_checkpoint(place: Place) -> None:
    store = place.open()
    save(store, "7-ab")
    loaded = store.load("7-ab")[1]["basket"]
    loaded["prices"][:] = 1
    loaded[""]["nested"]["none"] = 1
    loaded["titles"].append("x")
    again = store.load("7-ab")[1]["basket"]
    assert (again["prices"][0, 0], again[""]["nested"]["none"], len(again["titles"])) == (0, None, 5)


def test_scalars_that_change_after_the_save_are_not_in_it(place: Place) -> None:
    store = place.open()
    basket = filled()
    store.save("7-ab", {"tick": 7}, {"basket": basket.snapshot()})
    basket.nested["events/0"] = 4
    store.flush()
    assert store.load("7-ab")[1]["basket"][""]["nested"]["events/0"] == 3


def test_a_scalar_that_is_no_json_is_refused_at_once(place: Place) -> None:
    with pytest.raises(TypeError):
        place.open().save("1-ab", {}, {"basket": {"": {"n": np.int64(1)}}})


def test_names_are_newest_tick_first_by_number(place: Place) -> None:
    store = place.open()
    for name in ("9-ab", "100-cd", "20-ef"):
        save(store, name)
    assert list(store.names()) == ["100-cd", "20-ef", "9-ab"]


def test_a_reopened_store_holds_what_was_flushed(place: Place) -> None:
    save(place.open(), "7-ab")
    again = place.open()
    assert list(again.names()) == ["7-ab"]
    assert again.load("7-ab")[1]["basket"]["titles"] == filled().titles


def test_saving_a_name_again_replaces_it(place: Place) -> None:
    store = place.open()
    save(store, "7-ab")
    save(store, "7-ab", {"basket": Basket().snapshot()})
    assert list(store.names()) == ["7-ab"]
    assert store.load("7-ab")[1]["basket"]["titles"] == []


def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_whole(place: Place) -> None:
    store = place.open()
    save(store, "7-ab")
    save(store, "8-cd")
    place.damage("8-cd")
    with pytest.raises(CheckpointRefused, match="8-cd"):
        store.load("8-cd")
    assert store.load("7-ab")[0]["tick"] == 7


def test_a_missing_checkpoint_is_refused(place: Place) -> None:
    with pytest.raises(CheckpointRefused):
        place.open().load("3-ab")


@pytest.mark.parametrize("point", ["checkpoint_begin", "checkpoint_mid"])
def test_a_crash_in_mid_save_leaves_the_ones_before_and_no_half_one(place: Place, point: str) -> None:
    faults = Faults()
    faults.crash_at(point, nth=2)
    store = place.open(faults)
    save(store, "7-ab")
    with pytest.raises(Crash):
        save(store, "8-cd")
    again = place.open()
    assert list(again.names()) == ["7-ab"]
    save(again, "8-cd")
    assert again.load("8-cd")[0]["tick"] == 8


def test_a_crash_after_the_save_leaves_it_whole(place: Place) -> None:
    faults = Faults()
    faults.crash_at("after_checkpoint")
    with pytest.raises(Crash):
        save(place.open(faults), "7-ab")
    assert place.open().load("7-ab")[0]["tick"] == 7
