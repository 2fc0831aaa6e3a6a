"""Real processes of MLflow on loopback, which a test may kill and bring back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROOT = Path(__file__).resolve().parents[2]
START_S = 120.0


class Loopback:
    """A process of MLflow that answers HTTP on loopback; its port stays the same over its lives.

    Args:
        folder: of the log; it runs there.
        words: of the `mlflow` command, without host and port.
        path: answers when it is up.
        tracking_uri: where it reads.
    """

    def __init__(self, folder: Path, words: Sequence[str], *, path: str = "/health", tracking_uri: str = "") -> None:
        self.folder, self._words, self._path = folder, words, path
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = int(taken.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        # `mlflow models serve` looks for uvicorn on the path, where a virtual environment nobody activated is not.
        path_of_this_python = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        self._environment = {
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PATH": path_of_this_python,
            "PYTHONPATH": str(ROOT),
        }
        if tracking_uri:
            self._environment["MLFLOW_TRACKING_URI"] = tracking_uri
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it answers."""
        command = [sys.executable, "-m", "mlflow", *self._words, "--host", "127.0.0.1", "--port", str(self.port)]
        log_path = self.folder / "server.log"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment, cwd=self.folder, start_new_session=True
            )
        until_s = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(log_path.read_text()[-2_000:])
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL to it and its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}{self._path}", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.kill()


class MlflowServer(Loopback):
    """A tracking server over a sqlite file and a folder.

    Args:
        folder: of the store, the artefacts and the log.
    """

    def __init__(self, folder: Path) -> None:
        stores = ("--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--serve-artifacts")
        super().__init__(
            folder, ["server", "--workers", "1", *stores, "--artifacts-destination", str(folder / "artifacts")]
        )

    def client(self) -> MlflowClient:
        """A client of it, which is the process's now: a model's own URI is looked up there."""
        import mlflow

        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        return mlflow.MlflowClient(self.uri, self.uri)

    def artifact_bytes(self) -> int:
        """Of the artefacts on its disk."""
        return sum(path.stat().st_size for path in (self.folder / "artifacts").rglob("*") if path.is_file())
