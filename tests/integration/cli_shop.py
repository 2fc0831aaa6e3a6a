"""A pipeline on a real broker as the command line sees it: topics of its own, commands run in this process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from typer.testing import CliRunner, Result

from stream_rec import cli
from stream_rec.events import Record
from stream_rec.io.kafka import Access, Admin, Reader, Sending, Writer
from stream_rec.io.kafka_decode import Polled
from stream_rec.stream.privacy import Sealer

KEY = "a key for tests"
AT_MS = 1_298_937_600_000
WAIT_S = 20.0
TOPICS = ("events", "items", "control", "slates", "versions", "ledger", "dead_letters")


class Shop:
    """A pipeline under names that start with `prefix`."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.access = Access((bootstrap,), "PLAINTEXT", {})
        self.prefix = prefix
        self.sets = [
            f"kafka.bootstrap_servers={bootstrap}",
            f"pipeline.name={prefix}",
            f"privacy.key={KEY}",
            *(f"topics.{name}={self.name(name)}" for name in TOPICS),
        ]

    def name(self, topic: str) -> str:
        return f"{self.prefix}.{topic.replace('_', '-')}"

    def run(self, *words: str, sets: Sequence[str] = ()) -> Result:
        options = [part for text in (*self.sets, *sets) for part in ("--set", text)]
        return CliRunner().invoke(cli.app, [*words, *options])

    def create(self, *words: str) -> Result:
        return self.run("topics", "create", "--replication", "1", "--partitions", "3", *words)

    def put(self, *sendings: Sending) -> None:
        with closing(Writer(self.access)) as writer:
            writer.settle([writer.send(sending) for sending in sendings])

    def stored(self, topic: str) -> list[Polled]:
        """Committed records, partition by partition."""
        with closing(Admin(self.access)) as admin, closing(Reader(self.access)) as reader:
            partitions = [(self.name(topic), n) for n in range(admin.topics([self.name(topic)])[self.name(topic)][1])]
            ends = reader.ends(partitions)
            reader.assign(partitions)
            for at, begin in reader.begins(partitions).items():
                reader.seek(at, begin)
            found: dict[tuple[str, int], list[Polled]] = {at: [] for at in partitions}
            while any(reader.position(at) < end for at, end in ends.items()):
                for at, polled in reader.poll(100, 1_000).items():
                    found[at] += polled
        return [record for at in partitions for record in found[at]]

    def bury(self, *records: tuple[Record, str], key: str = KEY) -> None:
        """Put dead letters into their topic, as a worker would."""
        letters = [Sealer(key.encode()).seal(record, reason=reason, stage="decode") for record, reason in records]
        self.put(*(Sending(self.name("dead_letters"), letter.key, letter.value) for letter in letters))
