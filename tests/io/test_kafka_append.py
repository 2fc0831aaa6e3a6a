"""Where a key's records go."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as theirs

from stream_rec.io.kafka_append import murmur2, partition_of


@given(st.binary(max_size=70))
@settings(derandomize=True, deadline=None)
def test_a_key_has_the_hash_that_every_kafka_client_gives_it(key: bytes) -> None:
    assert murmur2(key) == theirs(key)


def test_records_without_a_key_stay_in_order_in_the_first_partition() -> None:
    assert partition_of(None, 3) == 0
