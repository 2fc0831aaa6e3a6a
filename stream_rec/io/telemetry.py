"""The health port: /healthz and /readyz for probes, /status for people, /metrics for Prometheus.

Only importer of prometheus_client.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

LOG = logging.getLogger(__name__)


class Told(Protocol):
    """What is asked."""

    def table(self) -> Mapping[str, Any]:
        """Everything, as `/status` says it."""
        ...

    def is_alive(self) -> bool:
        """Whether the process should go on."""
        ...

    def is_ready(self) -> bool:
        """Whether it does its work."""
        ...


class HealthServer:
    """Serves one process's health; a port that is taken is reported and does without.

    Args:
        told: what is asked at every request.
        host: address to bind.
        port: 0 for none at all.
    """

    def __init__(self, told: Told, host: str, port: int) -> None:
        self._server: ThreadingHTTPServer | None = None
        if not port:
            return
        try:
            self._server = ThreadingHTTPServer((host, port), _answers(told))
        except OSError as error:
            LOG.warning("health is not served: %s:%s is not free (%s); set health.port", host, port, error.strerror)
            return
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Samples:
    """Health as Prometheus reads it, made anew at every scrape."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def collect(self) -> Iterator[Metric]:
        told = self._told.table()
        records = CounterMetricFamily("stream_rec_records", "Records by outcome.", labels=["outcome"])
        for outcome, n in told["records"].items():
            records.add_metric([outcome], n)
        yield records
        yield CounterMetricFamily("stream_rec_ticks", "Committed ticks.", value=told["ticks"])
        yield CounterMetricFamily("stream_rec_rebuilds", "Recoveries within this process.", value=told["rebuilds"])
        yield GaugeMetricFamily("stream_rec_ready", "1 while ticks are committed.", value=self._told.is_ready())
        yield GaugeMetricFamily("stream_rec_tick", "Number of the last tick.", value=told["tick"])
        for name, what, value in (
            ("stream_rec_lag_records", "Records that wait.", told["lag"]),
            ("stream_rec_tick_mean_ms", "Mean time from cut to commit.", told["mean_tick_ms"]),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, what, value=value)


def _answers(told: Told) -> type[BaseHTTPRequestHandler]:
    registry = CollectorRegistry()
    registry.register(_Samples(told))
    answers: dict[str, Callable[[], tuple[int, str, bytes]]] = {
        "/healthz": lambda: _yes_or_no(told.is_alive(), told),
        "/readyz": lambda: _yes_or_no(told.is_ready(), told),
        "/status": lambda: (200, "application/json", json.dumps(dict(told.table())).encode()),
        "/metrics": lambda: (200, "text/plain; version=0.0.4", generate_latest(registry)),
    }

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            status, kind, body = answer() if answer else (404, "text/plain", b"/healthz /readyz /status /metrics\n")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            del format, args

    return Answer


def _yes_or_no(yes: bool, told: Told) -> tuple[int, str, bytes]:
    table = told.table()
    text = f"{table['state']}{': ' if table['detail'] else ''}{table['detail']}\n"
    return (200 if yes else 503), "text/plain", text.encode()
