"""Snapshots of large columns reuse memory, and never memory that somebody still looks at."""

from __future__ import annotations

import numpy as np

from stream_rec.component import MAX_SPARES, SPARED_BYTES, Component, restore_all

N = SPARED_BYTES // 8


class Table(Component):
    """One large column, filled from the front."""

    columns = ("values",)
    scalars = ("n",)

    def __init__(self) -> None:
        self.values = np.zeros(2 * N, np.int64)
        self.n = 0

    def used(self) -> int:
        return self.n

    def fill(self, n: int, value: int) -> Table:
        self.values[:n], self.n = value, n
        return self


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_a_snapshot_that_is_held_keeps_its_content_however_many_follow():
    table = Table()
    held = [table.fill(N, value).snapshot()["values"] for value in range(1, 3 * MAX_SPARES)]
    assert [set(column.tolist()) for column in held] == [{value} for value in range(1, 3 * MAX_SPARES)]


def test_the_memory_of_a_dropped_snapshot_is_used_again():
    table = Table().fill(N, 1)
    first = table.snapshot()["values"]
    was = address(first)
    del first
    assert address(table.fill(N + 1, 2).snapshot()["values"]) == was


def test_a_view_of_a_dropped_snapshot_still_protects_its_memory():
    table = Table().fill(N, 1)
    seen = table.snapshot()["values"].reshape(-1).view(np.uint8)[:8]
    shown = memoryview(table.snapshot()["values"])
    table.fill(N, 2)
    for _ in range(2 * MAX_SPARES):
        table.snapshot()
    assert seen.view(np.int64).tolist() == [1]
    assert shown[0] == 1


def test_two_components_never_share_the_memory_of_their_snapshots():
    one, two = Table().fill(N, 1).snapshot(), Table().fill(N, 2).snapshot()
    assert (one["values"][0], two["values"][0]) == (1, 2)


def test_a_snapshot_right_after_a_restore_is_whole_while_memory_is_being_touched():
    fresh = Table()
    fresh.restore(Table().fill(N, 7).snapshot())
    assert fresh.snapshot()["values"].tolist() == [7] * N


def test_all_components_are_put_back_together():
    saved = {str(n): Table().fill(N, n).snapshot() for n in range(5)}
    fresh = {name: Table() for name in saved}
    restore_all(fresh, saved)
    assert [set(fresh[name].snapshot()["values"].tolist()) for name in saved] == [{n} for n in range(5)]
