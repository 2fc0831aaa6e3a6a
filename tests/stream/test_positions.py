"""The order in which records of several partitions are folded."""

from __future__ import annotations

import numpy as np

from stream_rec.events import INPUT_RANK, Record, Topic
from stream_rec.stream.positions import Positions


def test_partitions_merge_on_running_time_then_topic_then_partition_then_offset() -> None:
    rng, positions = np.random.default_rng(0), Positions()
    positions.high_by_name = {"events/1": 40}
    sizes = {(Topic.EVENTS, 1): 20, (Topic.ITEMS, 0): 9, (Topic.EVENTS, 0): 30, (Topic.CONTROL, 0): 0}
    buffers = {
        (topic, number): [
            Record(topic, number, 3 * k, at_ms, None, b"") for k, at_ms in enumerate(rng.integers(0, 60, n).tolist())
        ]
        for (topic, number), n in sizes.items()
    }
    keyed = []
    for (topic, number), records in buffers.items():
        high = positions.high_by_name.get(f"{topic}/{number}", 0)
        for record in records:
            high = max(high, record.timestamp_ms)
            keyed.append(((high, INPUT_RANK[topic], number, record.offset), record))
    assert positions.order(buffers) == [record for _, record in sorted(keyed)]


def test_one_partition_keeps_its_order() -> None:
    records = [Record(Topic.EVENTS, 0, k, at, None, b"") for k, at in enumerate((5, 3, 9))]
    assert Positions().order({(Topic.EVENTS, 0): records, (Topic.ITEMS, 0): []}) == records
    assert Positions().order({}) == []
