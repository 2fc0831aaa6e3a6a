"""What a run says of its versions, gathered: which serves, which is meant, which stay, what changed."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.version_change import told_changed, weights_changed
from stream_rec.version_facts import DAY_MS, gather, kept, lineage_of, meant


def promoted(number: int, parent: str | None, *, event: str = "promote") -> list[dict]:
    name = f"v{number}-{number:02x}{number:02x}"
    notice = {"version": name, "event": event, "parent": parent, "tick": number, "event_at": number * 1_000}
    line = {"next": {"events/0": 10 * number}, "counts": {"consumed": 10 * number}, "n_examples": 2 * number}
    return [notice | {"sha256": "00", "lineage": line}, {"version": name, "event": "champion", "tick": number}]


TOLD = [*promoted(0, None, event="initial"), *promoted(1, "v0-0000"), *promoted(2, "v1-0101")]
BACK = {"version": "v1-0101", "event": "rollback", "parent": "v2-0202", "tick": 9, "event_at": 9_000, "sha256": "00"}


def test_the_champion_is_the_last_one_told_to_serve_and_rollback_the_one_before():
    assert gather(TOLD).aliases == {"champion": "v2-0202", "rollback": "v1-0101"}


def test_after_a_return_nothing_is_left_to_return_to():
    back = [*TOLD, BACK, {"version": "v1-0101", "event": "champion", "tick": 9}]
    assert gather(back).aliases == {"champion": "v1-0101"}


def test_a_return_does_not_change_where_a_version_comes_from():
    told = gather([*TOLD, BACK]).told["v1-0101"]
    assert (told["event"], told["tick"], told["parent"]) == ("promote", 1, "v0-0000")


@pytest.mark.parametrize("word", ["v2-0202", "v2-02", "v2", "2", "champion"])
def test_a_version_is_meant_by_its_name_its_beginning_its_number_and_its_alias(word):
    assert meant(gather(TOLD), word) == ["v2-0202"]


def test_a_pinned_version_has_that_name():
    gathered = gather([*TOLD, {"version": "v1-0101", "event": "pinned", "tick": 5}])
    assert gathered.aliases["pinned"] == "v1-0101"
    assert gathered.told["v1-0101"]["event"] == "promote"


def test_lineage_is_what_a_version_has_beyond_its_parent():
    told = gather(TOLD).told
    assert lineage_of(told["v2-0202"], told["v1-0101"]) == {
        "offsets": {"events/0": [10, 20]}, "event_span": [1_000, 2_000], "records": 10, "examples": 2,
    }  # fmt: skip


def test_offsets_of_a_version_whose_parent_is_not_told_begin_nowhere_known():
    assert lineage_of(gather(TOLD).told["v2-0202"], None)["offsets"] == {"events/0": [None, 20]}


def test_of_a_year_of_versions_the_named_the_newest_and_one_a_day_stay():
    told = {f"v{n}": {"tick": n, "event_at": n * DAY_MS // 27} for n in range(27 * 365)}
    stay = kept(told, {"v5"}, 20)
    assert {"v5", *list(told)[-20:]} <= stay
    assert len(stay) == 365 + 19 + 1


def test_the_group_that_moved_furthest_stands_first():
    before = {"ranker": np.ones(4, np.float32), "tower.maps": np.ones((2, 2), np.float32), "new": np.zeros(2)}
    after = {"ranker": np.full(4, 1.5, np.float32), "tower.maps": np.full((2, 2), 3.0), "new": np.ones(2)}
    rows = weights_changed(before, after)
    assert [(row["group"], row["relative"]) for row in rows] == [("new", None), ("tower.maps", 2.0), ("ranker", 0.5)]


def test_a_tensor_of_another_shape_is_named_as_such():
    (row,) = weights_changed({"bias": np.ones(2)}, {"bias": np.ones(3)})
    assert row["note"] == "shape [2] to [3]"


def test_a_group_of_one_version_only_is_named_as_such():
    (row,) = weights_changed({}, {"adapter.a": np.ones(2)})
    assert (row["relative"], row["note"]) == (None, "only in the second")


def test_numbers_side_by_side_say_their_difference():
    told = gather(TOLD).told
    rows = {row["what"]: row for row in told_changed(told["v1-0101"], told["v2-0202"])}
    assert rows["offset of events/0"] == {"what": "offset of events/0", "before": 10, "after": 20, "change": 10}
    assert "change" not in rows["parent"]
