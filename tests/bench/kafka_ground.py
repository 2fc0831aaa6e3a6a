"""A broker, a pipeline's topics and a worker as users start it: what the benchmarks on Kafka stand on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from stream_rec import assemble_kafka, config
from stream_rec.assemble_kafka import Admin, Reader, Sending, Writer
from stream_rec.events import Topic
from tests.integration.broker import Broker, find, free_port

KEY = "a key of the benchmarks"
OWN = {"STREAM_REC_PRIVACY__KEY": KEY, "STREAM_REC_MODEL__ENCODER": os.environ.get("STREAM_REC_MODEL__ENCODER", "none")}
"""Environment of the workers; the light models unless another encoder is asked for."""
N_PARTITIONS = 2
CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def say(text: str) -> None:
    """A line at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def load_average() -> str:
    """How busy the machine is, as a line beside a figure says it."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


class Ground:
    """One broker and a pipeline's topics in a temporary folder; everything is gone behind it.

    Args:
        heap: of the broker.
        n_partitions: of events, items and slates; items have one.
        sets: texts `section.key=value` of every command.
    """

    def __init__(self, *sets: str, heap: str = "512m", n_partitions: int = N_PARTITIONS) -> None:
        origin = find()
        if origin is None:
            raise SystemExit("no Kafka broker: set KAFKA_HOME to a folder with bin/kafka, or start docker")
        self._temporary = tempfile.TemporaryDirectory(prefix="stream-rec-bench-")
        self.folder = Path(self._temporary.name)
        self.broker = Broker(origin, self.folder / "broker", heap=heap)
        self.n_partitions = n_partitions
        self.sets = [
            f"kafka.bootstrap_servers={self.broker.bootstrap}",
            f"run.dir={self.folder / 'run'}",
            "pipeline.name=bench",
            "worker.instance=bench",
            "health.port=0",
            *sets,
        ]
        self._workers: list[WorkerProcess] = []

    def settings(self, *sets: str) -> config.Settings:
        """What every command here runs under."""
        return config.load(None, [*self.sets, *sets], OWN)

    def access(self) -> assemble_kafka.Access:
        """How the broker is reached."""
        return assemble_kafka.access_of(self.settings())

    def create_topics(self) -> None:
        """Every topic of the pipeline, kept as it must be."""
        settings = self.settings()
        admin = Admin(self.access())
        for ours, name in assemble_kafka.names_of(settings).items():
            kept = assemble_kafka.kept_of(settings)[ours]
            n = 1 if ours == Topic.ITEMS else kept.n_partitions or self.n_partitions
            admin.create(name, n_partitions=n, replication=1, configs=kept.configs)
        admin.close()

    def put(self, sendings: Iterator[Sending], at_once: int = 20_000) -> int:
        """Publish records as fast as it goes; returns how many."""
        writer, futures, n = Writer(self.access()), list[Any](), 0
        for sending in sendings:
            futures.append(writer.send(sending))
            if len(futures) >= at_once:
                n += writer.settle(futures)
                futures.clear()
        n += writer.settle(futures)
        writer.close()
        return n

    def worker(self, *arguments: str, **settings: str) -> WorkerProcess:
        """Start `stream-rec worker`; it is ended with the ground at the latest."""
        worker = WorkerProcess(self, arguments, [f"{k.replace('__', '.')}={v}" for k, v in settings.items()])
        self._workers.append(worker)
        return worker

    def command(self, *arguments: str | Path, sets: tuple[str, ...] = ()) -> list[str]:
        """A `stream-rec` command line under the settings of this ground."""
        script = Path(sys.executable).with_name("stream-rec")
        options = [word for text in (*self.sets, *sets) for word in ("--set", text)]
        return [str(script), *map(str, arguments), *options]

    def __enter__(self) -> Self:
        try:
            self.broker.start()
            self.create_topics()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and the broker, and remove the folder."""
        for worker in self._workers:
            worker.kill()
        self.broker.close()
        self._temporary.cleanup()


def environment() -> dict[str, str]:
    """That of every command: ours, with the privacy key."""
    return os.environ | OWN


class WorkerProcess:
    """`stream-rec worker` in a process of its own, its log in a file.

    Attributes:
        pid: of the process.
        started_at_s: when it was executed, seconds since the epoch.
    """

    def __init__(self, ground: Ground, arguments: tuple[str, ...], sets: list[str]) -> None:
        self._port = free_port()
        self.log = ground.folder / f"worker-{time.time_ns()}.log"
        command = ground.command("worker", *arguments, sets=(*sets, f"health.port={self._port}"))
        self.started_at_s = time.time()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stderr=log, stdout=log, env=environment())
        self.pid = self._process.pid

    def wait_ready(self, patience_s: float = 180.0) -> None:
        """Return when it commits ticks.

        Raises:
            SystemExit: it ended or does not come up; says its last words.
        """
        until_s = time.monotonic() + patience_s
        while time.monotonic() < until_s and self._process.poll() is None:
            if self._asked("readyz") is not None:
                return
            time.sleep(0.05)
        raise SystemExit(f"the worker does not run: {self.log.read_text()[-2000:]}")

    def status(self) -> Mapping[str, Any]:
        """What `/status` says; empty when it does not answer."""
        return msgspec.json.decode(self._asked("status") or b"{}", type=dict[str, Any])

    def _asked(self, page: str) -> bytes | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/{page}", timeout=2) as answer:
                return bytes(answer.read())
        except (urllib.error.URLError, OSError):
            return None

    def stop(self) -> int:
        """SIGTERM, and wait: its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, all threads."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / CLOCK_TICKS_PER_S


def resident_mb(pid: int) -> float:
    """Resident memory of a process, MB of 10^6 bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024 / 1e6


class Ticked(NamedTuple):
    """A tick as its ledger entry tells it."""

    number: int
    kind: str
    cut_at_ms: int
    written_at_ms: int
    """When its transaction was filled, by the producer's clock."""
    ranges: list[tuple[str, int, int, int]]
    """Topic, partition, first, next."""
    lagging: bool
    """Whether it trained on a quarter."""


def ledger(ground: Ground) -> list[Ticked]:
    """Every committed entry."""
    out = []
    for record in stored(ground, (ground.settings().topics.ledger, 0)):
        entry = msgspec.json.decode(record.value, type=dict[str, Any])
        tick = entry.get("tick", {})
        ranges = [(r[0], r[1], r[2], r[3]) for r in tick.get("ranges", ())]
        out.append(
            Ticked(
                entry["n"],
                entry["kind"],
                tick.get("cut_at_ms", 0),
                record.timestamp,
                ranges,
                tick.get("lagging", False),
            )
        )
    return out


def stored(ground: Ground, partition: tuple[str, int], first: int = 0) -> Iterator[Any]:
    """Every committed record of a partition from an offset on, as kafka-python gives it."""
    reader = Reader(ground.access())
    reader.assign([partition])
    end = reader.ends([partition])[partition]
    reader.seek(partition, first)
    while reader.position(partition) < end:
        yield from reader.poll(200, 5_000).get(partition, ())
    reader.close()
