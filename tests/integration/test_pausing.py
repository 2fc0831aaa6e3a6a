"""Reading ahead on a real broker: partitions that wait for others, and go on."""

from __future__ import annotations

import time

from stream_rec.io.kafka import Access, Admin, Reader, Sending, Writer
from tests.integration.broker import Broker

WAIT_S = 20.0
N_LONG, N_SHORT = 30_000, 2_000


def test_a_partition_that_was_paused_gives_the_rest_although_another_one_has_nothing_more(
    broker: Broker, names: str
) -> None:
    access = Access((broker.bootstrap,), "PLAINTEXT", {})
    admin, writer, reader = Admin(access), Writer(access), Reader(access)
    admin.create(names, n_partitions=2, replication=1, configs={})
    writer.settle([writer.send(Sending(names, None, b"x" * 100, n >= N_LONG)) for n in range(N_LONG + N_SHORT)])
    long, short = (names, 0), (names, 1)
    reader.assign([long, short])
    n_read = {long: 0, short: 0}
    for partition in (long, short):
        reader.seek(partition, 0)

    def read(partition: tuple[str, int], n: int) -> None:
        until_s = time.monotonic() + WAIT_S
        while n_read[partition] < n and time.monotonic() < until_s:
            for at, polled in reader.poll(100, 1_000).items():
                n_read[at] += len(polled)

    read(long, 1)
    reader.pause([long])
    read(short, N_SHORT)
    reader.resume([long])
    read(long, N_LONG)
    for client in (admin, writer, reader):
        client.close()
    assert n_read == {long: N_LONG, short: N_SHORT}
