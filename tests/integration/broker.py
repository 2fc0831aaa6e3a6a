"""A real Kafka broker for a test: it can be killed, frozen and brought back, and never outlives the test."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.integration.origins import Failed, Launch, Origin, find

__all__ = ["Broker", "Failed", "find", "free_port"]

SETTINGS = Path(__file__).with_name("broker.properties")
PROXIED = """
listeners=PLAINTEXT://127.0.0.1:@PORT@,PROXIED://127.0.0.1:@TARGET_PORT@,CONTROLLER://127.0.0.1:@CONTROLLER_PORT@
advertised.listeners=PLAINTEXT://127.0.0.1:@PORT@,PROXIED://127.0.0.1:@PROXY_PORT@,CONTROLLER://127.0.0.1:@CONTROLLER_PORT@
"""
FIRST_PORT, N_PORTS = 20_000, 12_000
"""Below what systems give to outgoing connections: while a broker is down no client can take its port."""
_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on and that this process was not given before.

    Raises:
        Failed: every port of the range is taken.
    """
    first = os.getpid() * 31 % N_PORTS
    for port in (FIRST_PORT + (first + n) % N_PORTS for n in range(N_PORTS)):
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise Failed(f"no free port in {FIRST_PORT}-{FIRST_PORT + N_PORTS - 1}")


class Broker:
    """One broker on 127.0.0.1, whose data outlive its process: start again to recover, on the same ports.

    Args:
        origin: what runs it, from `find()`.
        folder: an empty folder for everything of this broker.
        properties: lines that win over `broker.properties`; @DIR@, @PORT@, @CONTROLLER_PORT@, @PROXY_PORT@ and
            @TARGET_PORT@ are replaced.
        format_args: arguments of the first formatting, such as `--add-scram ...`.
        heap: the largest Java heap.
        proxied: add a listener on `target_port` whose clients are told to come to `proxy_port`, where a Proxy listens.

    Attributes:
        bootstrap: `127.0.0.1:PORT`, past any proxy.
        proxy_port: where the clients of the proxied listener come to.
        target_port: where the proxied listener answers.
    """

    def __init__(
        self,
        origin: Origin,
        folder: Path,
        *,
        properties: str = "",
        format_args: str = "",
        heap: str = "512m",
        proxied: bool = False,
    ) -> None:
        self.folder = folder.resolve()
        self.port, self.proxy_port, self.target_port = free_port(), free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._origin = origin
        self._properties = PROXIED * proxied + properties
        self._launch = Launch(self.folder, self.port, self.folder / "test.properties", heap, format_args)
        self._controller_port = free_port()
        self._ender: subprocess.Popen[bytes] | None = None
        self._running = self._paused = False

    def start(self) -> None:
        """Start and wait until it answers, two to three seconds. Raises Failed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._launch.properties.write_text(self._settings())
        if self._ender is None:
            self._ender = _end_at_the_latest_with_us(self._origin.end(self.folder))
        self._origin.start(self._launch)
        self._running = True

    def stop(self) -> None:
        """Shut down cleanly, also when frozen."""
        if self._paused:
            self.resume()
        self._origin.stop(self.folder)
        self._running = False

    def kill(self) -> None:
        """SIGKILL: a crash."""
        self._origin.kill(self.folder)
        self._running = self._paused = False

    def restart(self) -> None:
        """A clean stop and a start."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the process: connections stay open, new ones are even accepted, and nothing answers."""
        self._origin.pause(self.folder)
        self._paused = True

    def resume(self) -> None:
        """Let a frozen process go on."""
        self._origin.resume(self.folder)
        self._paused = False

    def mend(self) -> None:
        """Bring it back from whatever a test left: frozen, stopped or killed."""
        if self._paused:
            self.resume()
        if not self._running:
            self.start()

    def close(self) -> None:
        """End the process whatever its state; the data stay."""
        if self._ender is not None:
            self._ender.communicate()
            if self._ender.returncode:
                raise Failed(f"the broker in {self.folder} could not be ended: status {self._ender.returncode}")
            self._ender = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _settings(self) -> str:
        text = SETTINGS.read_text() + self._properties
        values: dict[str, object] = {
            "DIR": self.folder,
            "PORT": self.port,
            "CONTROLLER_PORT": self._controller_port,
            "PROXY_PORT": self.proxy_port,
            "TARGET_PORT": self.target_port,
        }
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        return text


def _end_at_the_latest_with_us(command: list[str]) -> subprocess.Popen[bytes]:
    """A process that runs `command` when its input ends: closed by us, or by the system after our own death."""
    waiting = ["sh", "-c", 'cat >/dev/null; exec "$@" >/dev/null 2>&1', "sh", *command]
    return subprocess.Popen(waiting, stdin=subprocess.PIPE, start_new_session=True)
