"""The trunk cache: bounded, keyed by base, and started anew rather than believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.model.trunk_cache import TrunkCache

WIDTH = 32
ROW_BYTES = 2 * WIDTH
ROOM = 60_000


def states(text: str, n: int = 5) -> np.ndarray:
    seed = int.from_bytes(text.encode()[:8].ljust(8), "little")
    return np.random.Generator(np.random.PCG64(seed)).normal(size=(n, WIDTH)).astype(np.float16)


def opened(path: str | None, base: str = "base", room: int = ROOM) -> TrunkCache:
    cache = TrunkCache(path, max_bytes=room)
    cache.bind(base, WIDTH)
    return cache


def filled(path: str | None, n: int) -> TrunkCache:
    cache = opened(path)
    for i in range(n):
        cache.put(f"t{i}", states(f"t{i}"))
    return cache


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 32)), max_size=400), st.integers(0, 50))
def test_what_is_held_is_what_was_put_and_the_newest(puts: list[tuple[int, int]], room: int) -> None:
    cache, order = opened(None, room=20_000 + 1_000 * room), {}
    for number, n in puts:
        text = f"{number}-{n}"
        cache.put(text, states(text, n))
        order.setdefault(text, None)
        if cache.get(text) is None:
            raise AssertionError("what was just put is gone")
    held = [
        text
        for text in order
        if (kept := cache.get(text)) is not None and np.array_equal(kept, states(text, int(text.split("-")[1])))
    ]
    assert len(held) == len(cache)


def test_the_oldest_go_first(tmp_path: Path) -> None:
    cache = filled(str(tmp_path / "trunk"), 500)
    held = [i for i in range(500) if cache.get(f"t{i}") is not None]
    assert held == list(range(500 - len(held), 500))
    assert 90 < len(held) < 180
    assert cache.n_evicted == 500 - len(held)


def test_the_file_never_outgrows_its_bound(tmp_path: Path) -> None:
    filled(str(tmp_path / "trunk"), 1_000)
    assert (tmp_path / "trunk").stat().st_size <= ROOM


@pytest.mark.parametrize("n", [0, 7, 100, 500])
def test_another_process_finds_what_was_written(tmp_path: Path, n: int) -> None:
    path = str(tmp_path / "trunk")
    before = filled(path, n)
    after = opened(path)
    assert len(after) == len(before)
    for i in range(n):
        mine, theirs = before.get(f"t{i}"), after.get(f"t{i}")
        assert (mine is None) == (theirs is None)
        assert mine is None or np.array_equal(mine, theirs)
    after.put("new", states("new"))
    assert np.array_equal(after.get("new"), states("new"))


@pytest.mark.parametrize(("base", "room"), [("other", ROOM), ("base", 2 * ROOM)])
def test_another_base_or_size_starts_anew(tmp_path: Path, base: str, room: int) -> None:
    path = str(tmp_path / "trunk")
    filled(path, 10)
    assert len(opened(path, base, room)) == 0


@pytest.mark.parametrize("content", [b"", b"x", b"a foreign file" * 9_000])
def test_a_foreign_file_is_started_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trunk").write_bytes(content)
    cache = filled(str(tmp_path / "trunk"), 3)
    assert np.array_equal(cache.get("t1"), states("t1"))


def test_torn_rows_are_a_miss_and_can_be_put_again(tmp_path: Path) -> None:
    path = tmp_path / "trunk"
    filled(str(path), 10)
    content = bytearray(path.read_bytes())
    at = content.find(states("t4").tobytes())
    content[at + 3] ^= 1
    path.write_bytes(content)
    cache = opened(str(path))
    assert cache.get("t4") is None
    assert np.array_equal(cache.get("t5"), states("t5"))
    cache.put("t4", states("t4"))
    assert np.array_equal(cache.get("t4"), states("t4"))


def test_a_torn_table_never_gives_a_wrong_state(tmp_path: Path) -> None:
    path = tmp_path / "trunk"
    filled(str(path), 60)
    whole = path.read_bytes()
    draw = np.random.Generator(np.random.PCG64(0))
    for _ in range(50):
        content = bytearray(whole)
        low = int(draw.integers(4_096, 4_096 + 60 * 48))
        content[low : low + 200] = draw.integers(0, 256, 200, np.uint8).tobytes()
        path.write_bytes(content)
        cache = opened(str(path))
        for i in range(60):
            kept = cache.get(f"t{i}")
            assert kept is None or np.array_equal(kept, states(f"t{i}"))
        for i in range(200):
            cache.put(f"n{i}", states(f"n{i}"))
            assert np.array_equal(cache.get(f"n{i}"), states(f"n{i}"))


def test_a_text_longer_than_the_ring_is_not_kept() -> None:
    cache = opened(None, room=4_096 + 8 * ROW_BYTES + 60)
    cache.put("long", states("long", 30))
    assert len(cache) == 0


def test_no_room_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="hold no text"):
        opened(None, room=4_096)
