"""Kafka's errors in our words."""

from __future__ import annotations

import pytest
from kafka import TopicPartition
from kafka import errors as kafka_errors

from stream_rec.errors import InputGone, Unreachable
from stream_rec.io.kafka import Access

ACCESS = Access(("somewhere:9092",), "PLAINTEXT", {})


@pytest.mark.parametrize("told", [{"slates"}, "slates"], ids=["of a transaction", "of a record"])
def test_a_topic_that_we_have_no_right_to_is_named(told: object) -> None:
    said = r"publishing: .*\(TopicAuthorizationFailedError: topic slates\)"
    with pytest.raises(Unreachable, match=said), ACCESS.speaking("publishing"):
        raise kafka_errors.TopicAuthorizationFailedError(told)


def test_all_topics_that_we_have_no_right_to_are_named_in_order() -> None:
    with pytest.raises(Unreachable, match=r"topic events, slates\)"), ACCESS.speaking("looking"):
        raise kafka_errors.TopicAuthorizationFailedError({"slates", "events"})


def test_offsets_that_are_gone_are_named() -> None:
    with pytest.raises(InputGone, match=r"events/1 offset 7"), ACCESS.speaking("reading"):
        raise kafka_errors.OffsetOutOfRangeError({TopicPartition("events", 1): 7})
