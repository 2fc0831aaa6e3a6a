"""Workers under restarting supervisors, as in a cluster: started again when they end, but not at once on 4."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from tests.storm.pipeline import environment

FENCED = 4
RESTART_S, FENCED_S = 0.3, 3.0


class Supervisor:
    """Keeps one worker of a name alive.

    Args:
        bootstrap: where the worker finds the brokers.
        name: its `worker.instance`.
        folder: its run folder.
        log: where it writes its words.
        module: what is run in place of the honest worker: `python -m MODULE ARGUMENTS`.
    """

    def __init__(
        self, bootstrap: str, name: str, folder: Path, *, log: Path, module: tuple[str, ...] = ("stream_rec.cli",)
    ) -> None:
        self.name, self.folder, self._module = name, folder, module
        # Locks by name lie in the temporary folder: storms beside each other are other machines.
        self._environment = environment(bootstrap, name) | {"TMPDIR": str(log.parent)}
        self.log = log
        self.exits: Counter[int] = Counter()
        self.began_ms = math.inf
        """When the process that runs now was started; without end while none runs."""
        self.told_of_hanging = False
        """Whether it ended for a transaction that hangs; whoever ends that clears this."""
        self._wanted = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._change = threading.Event()

    def start(self) -> None:
        """Begin to keep it alive."""
        self._wanted = True
        self._change.clear()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while self._wanted:
            self.began_ms = time.time() * 1000
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", *self._module, "worker", "--start", "earliest", "--out", str(self.folder)],
                    env=self._environment, stdout=log, stderr=log,
                )  # fmt: skip
            status = self._process.wait()
            self.began_ms = math.inf
            self.exits[status] += 1
            self.told_of_hanging |= status == 1 and "a transaction hangs" in self.words()
            if self._wanted:
                self._change.wait(FENCED_S if status == FENCED else RESTART_S)

    def send(self, number: int) -> None:
        """Send the worker a signal, if it lives."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL: the supervisor starts it again."""
        self.send(signal.SIGKILL)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 60.0) -> int:
        """End it and start it no more; returns its exit status."""
        self._wanted = False
        self._change.set()
        self.send(signal.SIGCONT)
        self.send(number)
        process = self._process
        if process is None:
            return 0
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            status = process.wait()
        if self._thread is not None:
            self._thread.join(10)
        return status

    def words(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:]) if self.log.exists() else ""


def wait_until(holds: object, timeout_s: float, every_s: float = 0.2) -> bool:
    """Ask until it holds; False when it does not in time."""
    assert callable(holds)
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        if holds():
            return True
        time.sleep(every_s)
    return False
