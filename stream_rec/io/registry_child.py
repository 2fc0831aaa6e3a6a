"""MLflow in a process of its own: to import it, open its store and log costs seconds that the loop must not share.

Calls go to the child as JSON lines and are answered one by one. It ends when its input does, so it outlives nobody.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

import stream_rec
from stream_rec.io.registry_outbox import News, Point
from stream_rec.redact import told_of

NICE = 10
"""The child gives way to the loop."""
END_S = 10.0


class Start(msgspec.Struct):
    """What the child must know: its first line."""

    run_dir: str
    uri: str
    name: str
    artifacts: str | None
    worker: str
    source: str
    follows: bool
    daily: bool
    topics: dict[str, str]
    tags: dict[str, str]
    params: dict[str, str]
    keep_last: int = 20
    max_bytes: int = 0
    title: str = ""


class Call(msgspec.Struct):
    """One call of a sink."""

    name: str
    waiting: list[str] = []  # msgspec copies an empty default for each instance
    before: int = -1
    notices: list[dict[str, Any]] = []
    points: list[Point] = []
    news: News | None = None
    statistics: str | None = None


class Logged(Protocol):
    """What the child drives; see `stream_rec.io.registry.Registry`."""

    def look_back(self, waiting: frozenset[str], notices: Iterable[Mapping[str, Any]]) -> None:
        """Log again what is missing."""
        ...

    def points(self, points: Sequence[Point]) -> None:
        """Log metric points."""
        ...

    def news(self, news: News, statistics: Path | None) -> None:
        """Log what a tick said."""
        ...

    def end(self) -> None:
        """Nothing more comes."""
        ...


class Refused(Exception):
    """The child could not do it now; the message is that of its exception."""


class ChildSink:
    """A `Sink` whose work is done by a child process, which is started when it is needed.

    Args:
        module: what the child runs.
        start: what it is told first.
        history: every notice of before tick `before`, oldest first.
    """

    def __init__(
        self, module: str, start: Start, history: Callable[[int], Iterable[Mapping[str, Any]]] = lambda _: ()
    ) -> None:
        self._module, self._start, self._history = module, start, history
        self._child: subprocess.Popen[bytes] | None = None
        self._looked_back: int | None = None
        self._dropped = False

    def begin(self, waiting: frozenset[str], before: int) -> None:
        """See `Sink`."""
        if self._child is None:
            self._spawn()
        if self._looked_back != before:
            self._call(Call("look_back", sorted(waiting), before, [dict(notice) for notice in self._history(before)]))
            self._looked_back = before

    def points(self, points: Sequence[Point]) -> None:
        """See `Sink`."""
        self._call(Call("points", points=list(points)))

    def news(self, news: News, statistics: Path | None) -> None:
        """See `Sink`."""
        self._call(Call("news", news=news, statistics=None if statistics is None else str(statistics)))

    def end(self) -> None:
        """See `Sink`."""
        child = self._child
        if child is None:
            return
        try:
            self._call(Call("end"))
            assert child.stdin is not None
            child.stdin.close()
            child.wait(END_S)
        finally:
            self._bury(child)

    def drop(self) -> None:
        """See `Sink`."""
        self._dropped = True
        if self._child is not None:
            self._child.kill()
            self._child.wait(END_S)

    def _spawn(self) -> None:
        if self._dropped:
            raise Refused("it was let go")
        root = str(Path(stream_rec.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._looked_back = None
        self._child = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        try:
            self._call(self._start)
        except Refused:
            self._bury(self._child)
            raise

    def _call(self, message: Call | Start) -> None:
        """Say one thing to the child.

        Raises:
            Refused: it could not do it, or is there no more.
        """
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(msgspec.json.encode(message) + b"\n")
            child.stdin.flush()
            answer = child.stdout.readline()
        except OSError:
            answer = b""
        if not answer:
            self._bury(child)
            raise Refused("the process of MLflow has ended")
        if error := msgspec.json.decode(answer, type=str):
            raise Refused(error)

    def _bury(self, child: subprocess.Popen[bytes]) -> None:
        child.kill()
        child.wait(END_S)
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue
        self._child = None


def serve(make: Callable[[Start], Logged], lines: IO[bytes], answers: IO[bytes]) -> None:
    """The child's side: do what the lines say, one after another, until they end.

    Args:
        make: the sink, from the first line.
        lines: calls.
        answers: an answer each: empty text, or what went wrong.
    """
    os.nice(NICE)
    sink: Logged | None = None
    uri = ""
    for line in lines:
        error = ""
        try:
            if sink is None:
                start = msgspec.json.decode(line, type=Start)
                uri = start.uri
                sink = make(start)
            else:
                _do(sink, msgspec.json.decode(line, type=Call))
        except Exception as failed:
            error = f"{type(failed).__name__}: {told_of(failed, uri)}"
        answers.write(msgspec.json.encode(error) + b"\n")
        answers.flush()


def _do(sink: Logged, call: Call) -> None:
    if call.name == "look_back":
        sink.look_back(frozenset(call.waiting), call.notices)
    elif call.name == "points":
        sink.points(call.points)
    elif call.name == "news" and call.news is not None:
        sink.news(call.news, None if call.statistics is None else Path(call.statistics))
    elif call.name == "end":
        sink.end()
