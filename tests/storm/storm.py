"""A seeded storm of faults on real workers and a real broker: `python -m tests.storm.storm --seeds 1-6 --faults 40`.

That is the nightly command: 6 storms of 40 faults, about 25 minutes. While a shop sends and looks at its slates, seeded
faults fall: workers are killed, frozen past every time-out, rivalled by a learner of another name, their newest
checkpoints damaged, their disk filled; the broker is killed and frozen; between them a proxy loses or delays chosen
calls. Then the weather clears, one worker catches up and ends, and the checker (tests/storm/checker.py) judges in
another process. One JSON line a storm; exit status 0 only when every storm was exact. Workers rank on statistics alone
unless the environment says otherwise of the model: STREAM_REC_MODEL__ENCODER=minilm, and so on.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from stream_rec.errors import StreamRecError
from stream_rec.io.kafka import Admin
from stream_rec.io.kafka_publisher import KafkaPublisher
from stream_rec.stream.ledger import decode
from tests.integration.broker import Broker, find
from tests.integration.proxy import Proxy
from tests.storm.operator import end_hanging
from tests.storm.pipeline import N_PARTITIONS, NAME, access_of, checkpoints_of, make_topics
from tests.storm.workers import Supervisor, wait_until

FROZEN_S = 4.0
"""Longer than the transaction time-out and the silence after which a learner is taken for dead."""
DISK_BYTES = 512 << 20
PROXY_FAULTS = (
    ("EndTxn", "drop_response"), ("EndTxn", "drop_request"), ("EndTxn", "delay_response"),
    ("Produce", "drop_response"), ("Produce", "drop_request"), ("InitProducerId", "drop_response"),
    ("AddPartitionsToTxn", "drop_response"), ("Fetch", "hold_request"), ("Fetch", "drop_response"),
    ("Metadata", "close"),
)  # fmt: skip


class Storm:
    """One storm.

    Args:
        seed: of the schedule and the shop.
        folder: everything of the storm.
        module: what is run in place of the honest worker.
        only: kinds of faults that may fall; all when empty.
    """

    def __init__(
        self, seed: int, folder: Path, *, module: tuple[str, ...] = ("stream_rec.cli",), only: tuple[str, ...] = ()
    ) -> None:
        origin = find()
        if origin is None:
            raise SystemExit("no Kafka broker: set KAFKA_HOME to a folder with bin/kafka, or start docker")
        self._rng, self._seed, self._folder = random.Random(seed), seed, folder
        self.broker = Broker(origin, folder / "broker", proxied=True)
        self._module = module
        self.faults: Counter[str] = Counter()
        self.patience_s = 120.0
        """How long the last worker may take to catch up."""
        self.by_hand: list[str] = []
        """Hanging transactions that were ended, as a worker asks a person to."""
        self._disk = folder / "disk"
        self.kinds: dict[str, tuple[int, Callable[[], None]]] = {
            "kill": (4, self._kill), "freeze": (2, self._freeze), "rival": (2, self._rival),
            "rival over frozen": (2, self._rival_over_frozen), "terminate": (1, self._terminate),
            "damaged checkpoint": (2, self._damage), "broker killed": (2, self._broker_killed),
            "broker frozen": (2, self._broker_frozen), "calls": (5, self._calls), "disk full": (1, self._disk_full),
        }  # fmt: skip
        self.kinds = {kind: of for kind, of in self.kinds.items() if not only or kind in only}

    def run(self, n_faults: int, *, load_s: float) -> dict[str, object]:
        """The whole storm; returns its figures with the checker's verdict."""
        self._mount()
        try:
            with self.broker, Proxy(self.broker.proxy_port, self.broker.target_port) as self.proxy:
                make_topics(self.broker.bootstrap)
                return self._weather(n_faults, load_s)
        finally:
            self._unmount()

    def _weather(self, n_faults: int, load_s: float) -> dict[str, object]:
        load = subprocess.Popen(
            [sys.executable, "-m", "tests.storm.load", self.broker.bootstrap, str(self._seed), str(load_s)],
            stdout=subprocess.PIPE,
        )
        self.main = self._worker("one", self._disk / "one")
        self.rival = self._worker("two", self._folder / "two")
        began_s = time.monotonic()
        try:
            self.main.start()
            wait_until(lambda: checkpoints_of(self.main.folder), 60)
            for _ in range(n_faults):
                time.sleep(self._rng.uniform(0.5, 2.5))
                self._fall()
                self._heed()
            self._clear()
            load.send_signal(signal.SIGTERM)
            n_sent = int((load.communicate(timeout=120)[0] or b"0").decode())
            caught_up = wait_until(self._caught_up, self.patience_s)
            status = self.main.stop()
        finally:
            load.kill()
            for worker in (self.main, self.rival):
                worker.stop(signal.SIGKILL)
        figures = {
            "seed": self._seed, "seconds": round(time.monotonic() - began_s), "faults": dict(self.faults),
            "n_faults": sum(self.faults.values()), "sent": n_sent, "caught_up": caught_up, "ended_with": status,
            "by_hand": self.by_hand,
            "exits": {**dict(self.main.exits), "rival": dict(self.rival.exits)},
        }  # fmt: skip
        return figures | self._verdict()

    def _worker(self, name: str, folder: Path) -> Supervisor:
        log = self._folder / f"{name}.log"
        return Supervisor(self.proxy.bootstrap, name, folder, log=log, module=self._module)

    def _verdict(self) -> dict[str, object]:
        summaries = [str(w.folder / "summary.json") for w in (self.main, self.rival)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.storm.checker", self.broker.bootstrap, *summaries],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not done.stdout.strip():
            return {"exact": False, "faults_found": ["the checker died: " + done.stderr[-1_500:]]}
        said = json.loads(done.stdout.splitlines()[-1])
        return {"faults_found": said.pop("faults"), **said}

    # ---- faults

    def _fall(self) -> None:
        names = list(self.kinds)
        name = self._rng.choices(names, [self.kinds[n][0] for n in names])[0]
        self.kinds[name][1]()
        if name != "calls":
            self.faults[name] += 1

    def _kill(self) -> None:
        self.main.kill()

    def _terminate(self) -> None:
        self.main.send(signal.SIGTERM)

    def _freeze(self) -> None:
        self.main.send(signal.SIGSTOP)
        time.sleep(self._rng.choice([0.3, 2.5, FROZEN_S]))
        self.main.send(signal.SIGCONT)

    def _rival(self) -> None:
        self.rival.start()
        time.sleep(self._rng.uniform(2.0, 5.0))
        if self._rng.random() < 0.5:
            self.main.kill()
            time.sleep(self._rng.uniform(2.0, 5.0))
        self.rival.stop(self._rng.choice([signal.SIGKILL, signal.SIGTERM]))

    def _rival_over_frozen(self) -> None:
        self.main.send(signal.SIGSTOP)
        self.rival.start()
        time.sleep(self._rng.uniform(FROZEN_S, FROZEN_S + 3))
        self.main.send(signal.SIGCONT)
        time.sleep(2.0)
        self.rival.stop(self._rng.choice([signal.SIGKILL, signal.SIGTERM]))

    def _damage(self) -> None:
        """Harm the newest checkpoint in one of three ways, then make it needed."""
        found = checkpoints_of(self.main.folder)
        if found:
            files = sorted(p for p in found[0].iterdir() if p.is_file())
            way = self._rng.randrange(3)
            victim = self._rng.choice(files)
            with suppress(OSError):
                if way == 0:
                    victim.unlink()
                elif way == 1:
                    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
                else:
                    raw = bytearray(victim.read_bytes())
                    raw[self._rng.randrange(len(raw))] ^= 0xFF
                    victim.write_bytes(bytes(raw))
        self.main.kill()

    def _broker_killed(self) -> None:
        self.broker.kill()
        time.sleep(self._rng.uniform(0.2, 4.0))
        self.broker.start()

    def _broker_frozen(self) -> None:
        self.broker.pause()
        time.sleep(self._rng.choice([0.5, 2.5, 6.0]))
        self.broker.resume()

    def _calls(self) -> None:
        """Lose or delay a few calls of one kind on their way."""
        api, action = self._rng.choice(PROXY_FAULTS)
        n = self._rng.randint(1, 3)
        before = len(self.proxy.fired)
        self.proxy.fault(api, action=action, nth=self._rng.randint(1, 4), times=n, delay_ms=3_500)
        time.sleep(self._rng.uniform(1.5, 4.0))
        if api == "InitProducerId":
            self.main.kill()
            time.sleep(2.0)
        self.proxy.clear()
        self.proxy.release()
        if len(self.proxy.fired) > before:
            self.faults[f"{api} {action}"] += 1

    def _disk_full(self) -> None:
        """Fill the disk of the run folder while checkpoints are due."""
        filler = self._disk / "filler"
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(1 << 20))
        time.sleep(self._rng.uniform(2.0, 4.0))
        if self._rng.random() < 0.5:
            self.main.kill()
            time.sleep(1.0)
        filler.unlink()

    # ---- before and after

    def _clear(self) -> None:
        self.proxy.clear()
        self.proxy.release()
        self.broker.mend()
        self.main.send(signal.SIGCONT)

    def _heed(self) -> None:
        """Do by hand what a worker asks for when it stops for a hanging transaction."""
        if self.main.told_of_hanging or self.rival.told_of_hanging:
            self.main.told_of_hanging = self.rival.told_of_hanging = False
            self.by_hand += end_hanging(self.broker.bootstrap)

    def _caught_up(self) -> bool:
        """Whether the offsets committed for lag tools stand at the ends of the inputs, and the main learner lives."""
        self._heed()
        inputs = [("control", 0), *((t, n) for t in ("items", "events") for n in range(N_PARTITIONS))]
        try:
            admin = Admin(access_of(self.broker.bootstrap))
            try:
                ends, done = admin.ends(inputs, committed=True), admin.committed_offsets(NAME)
            finally:
                admin.close()
        except StreamRecError:
            return False
        return all(done.get(at, 0) >= end for at, end in ends.items()) and self._writes(self.main)

    def _writes(self, worker: Supervisor) -> bool:
        """Whether the newest ledger entry is of the very process that runs now: it has claimed and recovered."""
        publisher = KafkaPublisher(access_of(self.broker.bootstrap), {"ledger": "ledger"}, "reads only")
        try:
            newest = publisher.newest()
        except StreamRecError:
            return False
        finally:
            publisher.close()
        if newest is None or newest.written_at_ms < worker.began_ms:
            return False
        return bool(decode(newest.raw, newest.offset)["learner"] == worker.name)

    def _mount(self) -> None:
        """A small disk of its own for the run folder; without the right to mount one it is a folder like any."""
        self._disk.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "storm", str(self._disk)]
        self._mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
        if not self._mounted:
            self.kinds.pop("disk full", None)

    def _unmount(self) -> None:
        if self._mounted:
            subprocess.run(["umount", "-l", str(self._disk)], check=False)


def main() -> int:
    """Run the storms that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1-6", help="first-last, or one seed")
    parser.add_argument("--faults", type=int, default=40, help="faults a storm")
    parser.add_argument("--load-s", type=float, default=0.0, help="seconds over which the shop's days are spread")
    parser.add_argument("--keep", action="store_true", help="keep the folders of storms")
    given = parser.parse_args()
    first, _, last = given.seeds.partition("-")
    exact, n_faults = True, 0
    for seed in range(int(first), int(last or first) + 1):
        folder = Path(tempfile.mkdtemp(prefix=f"storm-{seed}-"))
        storm = Storm(seed, folder)
        figures = storm.run(given.faults, load_s=given.load_s or 5.0 * given.faults)
        print(json.dumps(figures), flush=True)
        exact &= bool(figures["exact"])
        n_faults += int(str(figures["n_faults"]))
        if figures["exact"] and not given.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"kept: {folder}\n{storm.main.words()}", file=sys.stderr)
    print(json.dumps({"storms_exact": exact, "n_faults": n_faults}))
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
