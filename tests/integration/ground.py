"""A pipeline on a broker under names of its own: its topics, records put into them, workers over them, its ledger."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from stream_rec import assemble_kafka, config
from stream_rec.clock import SystemClock
from stream_rec.events import Topic
from stream_rec.health import Health
from stream_rec.io.kafka import Access, Admin, Reader, Sending, Writer
from stream_rec.io.kafka_decode import Polled
from stream_rec.worker_run import Start, Supervisor
from tests.integration.broker import free_port

KEY = "the key of the integration tests"
WAIT_S = 40.0
EVENTS = (Topic.EVENTS, 0)
SETS = (
    "run.seed=3",
    "model.encoder=none",
    "registry.enabled=false",
    "health.port=0",
    "tick.max_records=64",
    "tick.max_wait_ms=20",
    "checkpoint.every_ms=300000",
    "kafka.transaction_timeout_ms=2000",
    "kafka.connect_timeout_ms=5000",
    "worker.instance=one",
    "worker.silence_ms=1500",
    "quality.dead_letter_share=1",
    "slate.n_slots=5",
    "slate.refresh_users_per_tick=2",
    "learn.light_cut_examples=100",
    "gate.min_users=0",
    "watermark.max_partitions=8",
    "dedupe.capacity=5000",
    "users.capacity=500",
    "histories.capacity=5000",
    "items.capacity=500",
    "attribution.max_decisions=500",
    "attribution.max_exposures=500",
    "window.capacity=500",
    "reservoir.capacity=100",
    "learn.max_pending_visits=500",
    "learn.recent_capacity=5000",
    "learn.exact_items=100",
)
"""Small tables, so that a pipeline is made in no time."""


def until(condition: Callable[[], Any], what: str = "what was waited for", *, wait_s: float = WAIT_S) -> None:
    """Return when `condition` holds; fail after `wait_s`."""
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not so after {wait_s:g} s"
        time.sleep(0.02)


def event(n: int, *, at_ms: int | None = None, user: str | None = None, item: str | None = None) -> bytes:
    """The n-th view of an item."""
    at_ms = round(time.time() * 1000) if at_ms is None else at_ms
    said = {"event_id": f"e{n}", "event_type": "view_item", "event_at": at_ms}
    return msgspec.json.encode(said | {"user_id": user or f"u{n % 7}", "item_id": item or f"i{n % 11}"})


def item(n: int) -> Sending:
    """A catalogue record, its topic still as we call it."""
    value = msgspec.json.encode({"item_id": f"i{n}", "title": f"Cup {n}"})
    return Sending(Topic.ITEMS, b"i%d" % n, value, 0)


class Ground:
    """Topics that start with `prefix`, of the pipeline of that name.

    Args:
        bootstrap: where clients connect.
        prefix: in front of every name.
        folder: where run folders and logs go.
        sets: texts `section.key=value` of everything here.
    """

    def __init__(self, bootstrap: str, prefix: str, folder: Path, *sets: str) -> None:
        self.bootstrap, self.prefix, self.folder = bootstrap, prefix, folder
        self.run_dir = folder / "run"
        topics = ("events", "items", "control", "slates", "versions", "ledger", "dead_letters")
        self.sets = (
            *SETS,
            f"kafka.bootstrap_servers={bootstrap}",
            f"pipeline.name={prefix}",
            *(f"topics.{t}={prefix}.{t}" for t in topics),
            *sets,
        )
        self._ledger: Reader | None = None
        self._read: list[Polled] = []
        self._closing: list[Callable[[], None]] = []

    def settings(self, *sets: str, out: Path | None = None) -> config.Settings:
        """What a command runs under."""
        run = f"run.dir={out or self.run_dir}"
        return config.load(None, [*self.sets, run, *sets], {"STREAM_REC_PRIVACY__KEY": KEY})

    def access(self) -> Access:
        """How the broker is reached."""
        return assemble_kafka.access_of(self.settings())

    # ---- topics

    def create_topics(self, *, n_partitions: int = 1, changed: Mapping[str, Mapping[str, str]] | None = None) -> Ground:
        """All topics as they must be kept, but for the `changed` configs of some."""
        with self.admin() as admin:
            settings = self.settings()
            for ours, name in assemble_kafka.names_of(settings).items():
                kept = assemble_kafka.kept_of(settings)[ours]
                n = n_partitions if ours in (Topic.EVENTS, Topic.SLATES) else 1
                configs = {**kept.configs, **(changed or {}).get(ours, {})}
                admin.create(name, n_partitions=n, replication=1, configs=configs)
        return self

    def name(self, topic: str) -> str:
        """The cluster's name of a topic."""
        return assemble_kafka.names_of(self.settings())[topic]

    def admin(self) -> closing[Admin]:
        """An admin client, as a context."""
        return closing(Admin(self.access()))

    # ---- records

    def put(self, sendings: Iterable[Sending]) -> list[int]:
        """Publish records whose topic is still as we call it; returns their offsets."""
        with closing(Writer(self.access())) as writer:
            futures = [writer.send(s._replace(topic=self.name(s.topic))) for s in sendings]
            writer.settle(futures)
            return [future.get(0).offset for future in futures]

    def put_events(self, n: int, *, first: int = 0, partition: int = 0, at_ms: int | None = None) -> None:
        """Publish `n` events from number `first` on; at their own times, a second apart, where `at_ms` is given."""
        times = [None if at_ms is None else at_ms + 1000 * i for i in range(n)]
        self.put(
            Sending(Topic.EVENTS, b"u", event(first + i, at_ms=at), partition, timestamp_ms=at)
            for i, at in enumerate(times)
        )

    def stored(self, name: str) -> dict[int, list[Polled]]:
        """Every committed record of a topic of the cluster, by partition."""
        with self.admin() as admin, closing(Reader(self.access())) as reader:
            partitions = [(name, n) for n in range(admin.topics([name])[name].n_partitions)]
            begins, ends = reader.begins(partitions), reader.ends(partitions)
            out: dict[int, list[Polled]] = {n: [] for _, n in partitions}
            reader.assign(partitions)
            for at in partitions:
                reader.seek(at, begins[at])
            while any(reader.position(at) < ends[at] for at in partitions):
                for at, polled in reader.poll(100, 5_000).items():
                    out[at[1]] += polled
            return out

    def values(self, topic: str, *, ending: str = "") -> list[tuple[bytes | None, bytes | None]]:
        """(key, value) of a topic as we call it, partition by partition."""
        found = self.stored(self.name(topic) + ending)
        return [(r.key, r.value) for n in sorted(found) for r in found[n]]

    def ledger(self) -> list[Polled]:
        """The committed entries so far."""
        at = (self.name(Topic.LEDGER), 0)
        if self._ledger is None:
            self._ledger = Reader(self.access())
            self._closing.append(self._ledger.close)
            self._ledger.assign([at])
            self._ledger.seek(at, 0)
        end = self._ledger.ends([at])[at]
        while self._ledger.position(at) < end:
            self._read += self._ledger.poll(100, 5_000).get(at, [])
        return self._read

    def entries(self) -> list[dict[str, Any]]:
        """The committed entries so far, decoded."""
        return [msgspec.json.decode(r.value or b"") for r in self.ledger()]

    def kinds(self) -> list[str]:
        """Kinds of the entries so far."""
        return [entry["kind"] for entry in self.entries()]

    def n_taken(self, partition: tuple[str, int] = EVENTS) -> int:
        """Records of a partition that committed ticks have taken."""
        ranges = (r for e in self.entries() for r in e.get("tick", {}).get("ranges", ()))
        return sum(r[4] for r in ranges if (r[0], r[1]) == partition)

    def await_taken(self, n: int, partition: tuple[str, int] = EVENTS) -> None:
        """Return when so many records of a partition were taken."""
        until(lambda: self.n_taken(partition) >= n, f"{n} records of {partition} are in the ledger")

    def totals(self) -> dict[str, int]:
        """Records by outcome, over the ledger."""
        out: dict[str, int] = {}
        for entry in self.entries():
            for name, n in entry.get("counts", {}).items():
                out[name] = out.get(name, 0) + n
        return out

    # ---- workers

    def worker(self, *sets: str, start: Start | None = None, out: Path | None = None) -> Inside:
        """A worker in a thread of this process."""
        made = Inside(self.settings(*sets, out=out), start or Start("earliest"))
        self._closing.append(made.stop)
        return made

    def process(
        self, *words: str, sets: Sequence[str] = (), out: Path | None = None, given: Mapping[str, str] | None = None
    ) -> Process:
        """A `stream-rec` command in a process of its own; `given` goes into its environment."""
        made = Process(self, words, (*sets, f"run.dir={out or self.run_dir}"), given or {})
        self._closing.append(made.close)
        return made

    def close(self) -> None:
        """End what still runs."""
        for close in reversed(self._closing):
            close()
        self._closing.clear()


class Inside:
    """A worker in a thread: what `stream-rec worker` runs, without its lock, its signals and its port."""

    def __init__(self, settings: config.Settings, start: Start) -> None:
        self.told = Health()
        self.error: BaseException | None = None
        self.summary: dict[str, Any] | None = None
        self._stop = threading.Event()
        self._supervisor = Supervisor(settings, start, self.told, stopped=self._stop.is_set, clock=SystemClock())
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.summary = self._supervisor.run()
        except BaseException as error:
            self.error = error

    def ended(self) -> BaseException:
        """The error that it ends with."""
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), f"the worker goes on: {self.told.table()}"
        assert self.error is not None, "the worker ended without an error"
        return self.error

    def stop(self) -> dict[str, Any]:
        """Let it drain; its summary, empty when it had ended before."""
        self._stop.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "the worker does not stop"
        return self.summary or {}


class Process:
    """A `stream-rec` command; its words go to a file."""

    def __init__(self, ground: Ground, words: Sequence[str], sets: Sequence[str], given: Mapping[str, str]) -> None:
        self._port = free_port()
        self._log = ground.folder / f"{words[0]}-{self._port}.log"
        options = [w for text in (*ground.sets, *sets, f"health.port={self._port}") for w in ("--set", text)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_REC_")}
        # The lock by name lies in the temporary folder.
        environment |= {"STREAM_REC_PRIVACY__KEY": KEY, "TMPDIR": str(ground.folder), **given}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stream_rec.cli", *words, *options], stdout=log, stderr=log, env=environment
            )

    def asked(self, page: str) -> tuple[int, str]:
        """Status and body of a page of its health port; 0 while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{page}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()
        except (urllib.error.URLError, OSError):
            return 0, ""

    def state(self) -> str:
        """What /status calls its state."""
        return str(msgspec.json.decode(self.asked("/status")[1] or b"{}").get("state", ""))

    def await_state(self, word: str) -> None:
        """Return when /status says so."""
        until(lambda: self.state() == word or self._process.poll() is not None, f"the worker is {word}")
        assert self._process.poll() is None, self.words()

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, also when it is frozen."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End it, and tell a test that failed what it said."""
        self.kill()
        print(f"exit status {self._process.returncode}, and it said:\n{self.words()}")

    def wait(self, wait_s: float = WAIT_S) -> int:
        """Its exit status."""
        return self._process.wait(wait_s)

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self.send(signal.SIGTERM)
        return self.wait()

    def words(self) -> str:
        """What it said."""
        return self._log.read_text(errors="replace")
