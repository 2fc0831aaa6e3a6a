"""A proxy between Kafka clients and a broker that loses, delays or stalls chosen calls.

It reads of a request no more than its first eight bytes (API key, version, correlation id) and of an answer its
correlation id, so it serves any client and any version over plain TCP. Clients stay behind it because the broker's
proxied listener is advertised at the proxy's port (`Broker(proxied=True)`).
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self, get_args

Action = Literal["drop_request", "drop_response", "delay_response", "hold_request", "close"]

APIS = {
    0: "Produce",
    1: "Fetch",
    2: "ListOffsets",
    3: "Metadata",
    8: "OffsetCommit",
    9: "OffsetFetch",
    10: "FindCoordinator",
    11: "JoinGroup",
    12: "Heartbeat",
    13: "LeaveGroup",
    14: "SyncGroup",
    15: "DescribeGroups",
    18: "ApiVersions",
    19: "CreateTopics",
    20: "DeleteTopics",
    21: "DeleteRecords",
    22: "InitProducerId",
    23: "OffsetForLeaderEpoch",
    24: "AddPartitionsToTxn",
    25: "AddOffsetsToTxn",
    26: "EndTxn",
    28: "TxnOffsetCommit",
    32: "DescribeConfigs",
    37: "CreatePartitions",
    44: "IncrementalAlterConfigs",
    60: "DescribeCluster",
    61: "DescribeProducers",
    65: "DescribeTransactions",
    66: "ListTransactions",
}
KEYS = {name: key for key, name in APIS.items()}
CONNECT_TIMEOUT_S = 5.0


def api_name(key: int) -> str:
    """The protocol's name of an API key; `api-KEY` for one that has no name here."""
    return APIS.get(key, f"api-{key}")


@dataclass(eq=False)
class Fault:
    """One fault; requests of its API are counted over all connections from the moment it is set.

    Attributes:
        api: API name as in `APIS`.
        action: what happens.
        nth: the first request that is hit, from 1.
        times: how many requests in a row are hit; None is every one from the nth on.
        delay_ms: how long a held call is held; None is until `release()`.
        n_requests: requests of the API since the fault was set.
    """

    api: str
    action: Action
    nth: int = 1
    times: int | None = 1
    delay_ms: int | None = None
    n_requests: int = 0

    def hits_next(self) -> bool:
        """Count one more request and tell whether it is hit."""
        self.n_requests += 1
        since = self.n_requests - self.nth
        return since >= 0 and (self.times is None or since < self.times)


@dataclass(eq=False)
class _Connection:
    client: socket.socket
    broker: socket.socket
    faulty_answers: dict[int, Fault] = field(default_factory=dict)

    def cut(self) -> None:
        """Wakes both directions; the sockets themselves are closed by the thread that owns them."""
        for side in (self.client, self.broker):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 64


class Proxy:
    """Listens on 127.0.0.1:`listen_port` and forwards to 127.0.0.1:`target_port` until closed.

    Attributes:
        bootstrap: where clients connect.
        seen: how many requests of each API were forwarded.
        fired: the faults that took effect, once for each time. A fault on an answer fires when the broker has
            answered, so what the request asked for is done by then.
    """

    def __init__(self, listen_port: int, target_port: int) -> None:
        self.bootstrap = f"127.0.0.1:{listen_port}"
        self.seen: Counter[str] = Counter()
        self.fired: list[Fault] = []
        self._target = ("127.0.0.1", target_port)
        self._changed = threading.Condition()
        self._faults: list[Fault] = []
        self._connections: set[_Connection] = set()
        self._n_releases = 0
        self._closed = False
        serve = self._serve

        class Accepted(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                serve(self.request)

        self._server = _Server(("127.0.0.1", listen_port), Accepted)
        self._accepting = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="proxy")
        self._accepting.start()

    def fault(
        self, api: str | int, *, action: Action, nth: int = 1, times: int | None = 1, delay_ms: int | None = None
    ) -> Fault:
        """Set a fault.

        Args:
            api: name as in `APIS`, or an API key.
            action: `drop_request`: never forwarded, the connection is closed. `drop_response`: the broker does it, the
                answer is thrown away and the connection closed. `delay_response`: the answer is held, and all later
                ones of its connection. `hold_request`: the request is held, and all later ones of its connection; it
                is forwarded at the release even if the client has gone. `close`: every connection is closed, the
                request is not forwarded.
            nth: the first request of this API from now on that is hit, from 1.
            times: how many requests in a row are hit; None is every one until `clear()`.
            delay_ms: how long a call is held; None is until `release()`.

        Raises:
            ValueError: an unknown API or action.
        """
        name = api_name(api) if isinstance(api, int) else api
        if isinstance(api, str) and api not in KEYS:
            raise ValueError(f"api={api!r} is not known; one of {sorted(KEYS)}, or an API key")
        if action not in get_args(Action):
            raise ValueError(f"action={action!r} is not known; one of {get_args(Action)}")
        made = Fault(name, action, nth, times, delay_ms)
        with self._changed:
            self._faults.append(made)
        return made

    def release(self) -> None:
        """Let go of everything that is held now."""
        with self._changed:
            self._n_releases += 1
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget all faults and let go of everything that is held."""
        with self._changed:
            self._faults.clear()
        self.release()

    def wait_fired(self, timeout_s: float, n: int = 1) -> None:
        """Wait until faults have fired `n` times since the proxy began. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.fired) >= n, timeout_s):
                raise TimeoutError(f"{len(self.fired)} of {n} faults fired in {timeout_s} s; seen: {dict(self.seen)}")

    def close(self) -> None:
        """Close every connection and the port, and wait for the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._cut_all()
        self._server.server_close()
        self._accepting.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self, client: socket.socket) -> None:
        try:
            broker = socket.create_connection(self._target, CONNECT_TIMEOUT_S)
        except OSError:
            return
        with broker:
            broker.settimeout(None)
            for side in (client, broker):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(client, broker)
            with self._changed:
                self._connections.add(connection)
                if self._closed:
                    connection.cut()
            answering = threading.Thread(target=self._pass_answers, args=(connection,), name="proxy-answers")
            answering.start()
            self._pass_requests(connection)
            answering.join()
            with self._changed:
                self._connections.discard(connection)

    def _pass_requests(self, connection: _Connection) -> None:
        try:
            while (frame := _read_frame(connection.client)) is not None:
                if not self._pass_request(connection, frame):
                    return
            # A client that has left still has its last requests done, as on any network.
            connection.broker.shutdown(socket.SHUT_WR)
        except OSError:
            connection.cut()

    def _pass_request(self, connection: _Connection, frame: bytes) -> bool:
        key, correlation_id = struct.unpack_from(">hxxi", frame, 4)
        name = api_name(key)
        fault = self._fault_on(name)
        if fault is not None:
            if fault.action == "drop_request":
                self._fire(fault)
                connection.cut()
                return False
            if fault.action == "close":
                self._fire(fault)
                self._cut_all()
                return False
            if fault.action == "hold_request":
                self._hold(fault)
            else:
                connection.faulty_answers[correlation_id] = fault
        with self._changed:
            self.seen[name] += 1
        connection.broker.sendall(frame)
        return True

    def _pass_answers(self, connection: _Connection) -> None:
        with contextlib.suppress(OSError):
            while (frame := _read_frame(connection.broker)) is not None:
                (correlation_id,) = struct.unpack_from(">i", frame, 4)
                fault = connection.faulty_answers.pop(correlation_id, None)
                if fault is not None and fault.action == "drop_response":
                    self._fire(fault)
                    break
                if fault is not None:
                    self._hold(fault)
                connection.client.sendall(frame)
        connection.cut()

    def _fault_on(self, name: str) -> Fault | None:
        with self._changed:
            # Every fault counts every request of its API, also one that another fault hits.
            hits = [fault for fault in self._faults if fault.api == name and fault.hits_next()]
            return hits[0] if hits else None

    def _fire(self, fault: Fault) -> None:
        with self._changed:
            self.fired.append(fault)
            self._changed.notify_all()

    def _hold(self, fault: Fault) -> None:
        timeout_s = None if fault.delay_ms is None else fault.delay_ms / 1000
        with self._changed:
            n_releases = self._n_releases
            self._fire(fault)
            self._changed.wait_for(lambda: self._closed or self._n_releases > n_releases, timeout_s)
            if self._closed:
                raise ConnectionAbortedError("the proxy was closed while this call was held")

    def _cut_all(self) -> None:
        with self._changed:
            for connection in self._connections:
                connection.cut()


def _read_frame(side: socket.socket) -> bytes | None:
    """The next frame with its length in front; None when the other end has closed."""
    head = _read_exactly(side, 4)
    if head is None:
        return None
    body = _read_exactly(side, int.from_bytes(head, "big"))
    return None if body is None else head + body


def _read_exactly(side: socket.socket, n_bytes: int) -> bytes | None:
    data = bytearray(n_bytes)
    view, n_read = memoryview(data), 0
    while n_read < n_bytes:
        n_new = side.recv_into(view[n_read:])
        if n_new == 0:
            return None
        n_read += n_new
    return bytes(data)
