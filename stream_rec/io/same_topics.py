"""Whether the input is still the one that a ledger began with: offsets mean nothing in a topic that was made anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stream_rec.errors import InputGone
from stream_rec.ports import TopicPartition


def same_topics(
    ids: Mapping[str, str],
    there: Sequence[TopicPartition],
    *,
    topic_ids: Mapping[str, str],
    partitions: Sequence[TopicPartition],
) -> None:
    """Compare topics as they are (`ids`, `there`) with those of the ledger (`topic_ids`, `partitions`).

    Raises:
        InputGone: a topic is another one under the old name, or has fewer partitions.
    """
    for topic, known in topic_ids.items():
        if ids.get(topic) != known:
            raise InputGone(
                f"topic {topic} was deleted and made anew (id {ids.get(topic)}, the ledger began with {known}), so its "
                "offsets mean other records; bring the old topic back or start a new pipeline.name"
            )
    if gone := sorted(set(partitions) - set(there)):
        topic, number = gone[0]
        raise InputGone(
            f"topic {topic} has no partition {number} any more, and the ledger reads from it; bring it back or start a "
            "new pipeline.name"
        )
