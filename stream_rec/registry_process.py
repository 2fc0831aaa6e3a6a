"""The process that talks to MLflow: started by the outbox of a run, told what to log line by line, gone with it.

python -m stream_rec.registry_process   (calls on standard input; see `stream_rec.io.registry_child`)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stream_rec import version_page
from stream_rec.errors import JobFailed, StreamRecError
from stream_rec.io.registry import Place, Registry, Shown
from stream_rec.io.registry_child import Start, serve
from stream_rec.io.registry_gc import collect, measured
from stream_rec.io.registry_server import is_local, store_of
from stream_rec.io.registry_words import FLOOR, floor_of
from stream_rec.version_facts import gather


def main() -> None:
    """Serve until the input ends. What libraries print goes nowhere: standard output is for answers."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(registry_of, sys.stdin.buffer, answers)


def registry_of(start: Start) -> Registry:
    """The registry of a run."""
    folder = Path(start.run_dir)
    place = Place(
        uri=start.uri,
        name=start.name,
        artifacts=None if start.artifacts is None else Path(start.artifacts),
        weights=lambda version: folder / "weights" / f"{version}.safetensors",
        topics=start.topics,
        source=start.source,
        follows=start.follows,
        daily=start.daily,
        floor=FLOOR if is_local(folder, start.uri) else floor_of(start.worker),
        tidy=lambda notices: _tidy(folder, start, notices),
    )
    shown = Shown(
        worker=start.worker,
        title=start.title,
        tags=start.tags,
        params=start.params,
        page=version_page.note_of,
        tables=lambda news, notice: {
            "slices": version_page.slices_of(notice),
            "slates": version_page.slots_of(news.slates),
        },
        draw=lambda into: _draw(folder, into),
    )
    return Registry(place, shown)


def _tidy(folder: Path, start: Start, notices: Iterable[Mapping[str, Any]]) -> Collection[str]:
    """Collect what need not stay, once it has grown beyond its bound."""
    if start.max_bytes:
        store, gathered = store_of(folder, start.uri, start.name, start.worker), gather(notices)
        with suppress(JobFailed):
            if measured(folder, store, store.own(store.versions(), gathered.told)) > start.max_bytes:
                return collect(folder, store, gathered, keep_last=start.keep_last).versions
    return ()


def _draw(run_dir: Path, into: Path) -> Sequence[Path]:
    """The pictures of the run so far; none while nothing was measured."""
    from stream_rec.report_figure import draw_learning
    from stream_rec.report_run import read_run
    from stream_rec.version_figure import draw_calibration, draw_coverage

    with suppress(StreamRecError):
        run = read_run(run_dir)
        if run.lines:
            draw_learning(run, into / "learning.png", name=run_dir.name)
            draw_calibration(run, into / "calibration.png")
            draw_coverage(run, into / "coverage.png")
    return sorted(into.glob("*.png"))


if __name__ == "__main__":
    main()
