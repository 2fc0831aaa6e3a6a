"""What an operator does who is told of a hanging transaction: look, make sure that it was not to be committed, end it.

A broker that is killed may forget to write the markers of a transaction that its coordinator has ended. The worker
stops there and says so; nothing is lost, and nobody but a person may decide.
"""

from __future__ import annotations

import warnings

from stream_rec.events import Topic
from tests.storm.pipeline import N_PARTITIONS, NAME

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from kafka import KafkaAdminClient, TopicPartition
    from kafka.admin import AbortTransactionSpec, TransactionState
    from kafka.errors import KafkaError

OUTPUTS = (
    (Topic.LEDGER, 0), (Topic.VERSIONS, 0), (Topic.DEAD_LETTERS, 0), *((Topic.SLATES, n) for n in range(N_PARTITIONS)),
)  # fmt: skip
COMMITTING = (TransactionState.PREPARE_COMMIT, TransactionState.COMPLETE_COMMIT)


def end_hanging(bootstrap: str) -> list[str]:
    """End what hangs on the output topics; returns what was done, empty when the brokers are not there.

    Raises:
        AssertionError: the coordinator had decided to commit it: ending it would lose a tick.
    """
    try:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5_000, bootstrap_timeout_ms=3_000)
    except KafkaError:
        return []
    done = []
    try:
        now = admin.describe_transactions([NAME])[NAME]
        for at, state in admin.describe_producers([TopicPartition(*p) for p in OUTPUTS]).items():
            for producer in state.active_producers:
                older = (producer.producer_id, producer.producer_epoch) != (now.producer_id, now.producer_epoch)
                if producer.current_transaction_start_offset < 0 or not (older or now.state not in COMMITTING):
                    continue
                assert now.state not in COMMITTING, f"{at}: the coordinator says {now.state}"
                admin.abort_transaction(AbortTransactionSpec(at, producer.producer_id, producer.producer_epoch))
                done.append(
                    f"{at.topic}/{at.partition} from {producer.current_transaction_start_offset}, epoch "
                    f"{producer.producer_epoch}; coordinator: epoch {now.producer_epoch}, {now.state.value}"
                )
    except KafkaError as error:
        done.append(f"failed: {type(error).__name__}")
    finally:
        admin.close()
    return done
