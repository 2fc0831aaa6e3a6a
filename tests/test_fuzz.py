"""Spoiled records among clean ones, through the whole product: a file in, a run folder out."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from stream_rec import assemble, config
from stream_rec.component import SCALARS
from stream_rec.errors import InputRefused
from stream_rec.io.checkpoint import FolderCheckpoints
from stream_rec.replay import run_replay
from stream_rec.stream.accounting import OUTCOMES
from stream_rec.stream.decisions import UNSAID
from stream_rec.stream.intake import ACCEPTED, Intake
from tests import mutations

SETTINGS = (
    "privacy.key=fuzz",
    "slate.n_slots=4",
    "slate.refresh_users_per_tick=0",
    "learn.light_cut_examples=1000",
    "learn.max_visit_examples=16",
    "learn.max_next_examples=8",
    "learn.steps_per_tick=2",
    "report.interval_ms=3600000",
    "watermark.max_partitions=4",
)
BOUND_MS = 60_000
MAX_BESIDE_MB = 350
"""What may come on top of the state's tables: two ticks of long lines, the verdicts noted here (some 100 MB at 800,000
records) and the interpreter's own."""


class Verdicts:
    """Notes the verdict of every record, by line, and the process's largest memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_line: dict[int, tuple[str, str]] = {}
        self.process = psutil.Process()
        self.before_mb = self.most_mb = self._mb()
        count = Intake._count

        def noted(intake, records, batch):
            self.most_mb = max(self.most_mb, self._mb())
            for record, verdict in zip(records, batch.verdicts, strict=True):
                assert record.offset not in self.by_line
                self.by_line[record.offset] = verdict or ACCEPTED
            return count(intake, records, batch)

        monkeypatch.setattr(Intake, "_count", noted)

    def _mb(self) -> float:
        return self.process.memory_info().rss / 1e6


def numbers(value: Any) -> Iterator[float]:
    """Every number inside a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, int | float):
        yield value


def tables_mb(settings: config.Settings) -> float:
    """Memory of all tables of the state, which have their full size from the start."""
    components = assemble.pipeline_of(settings).components().values()
    columns = (getattr(component, name) for component in components for name in component.columns)
    return sum(column.nbytes for column in columns if isinstance(column, np.ndarray)) / 1e6


def lines_of(path: Path) -> Iterator[Any]:
    """The JSON values of a file of lines."""
    with path.open() as file:
        yield from map(json.loads, file)


def settings(out: Path) -> config.Settings:
    return config.load(None, [*SETTINGS, f"run.dir={out}"], {})


@pytest.mark.parametrize(
    ("n_clean", "n_spoiled"), [(9_000, 3_000), pytest.param(600_000, 200_000, marks=pytest.mark.slow)]
)
def test_a_quarter_of_spoiled_records_stops_nothing_and_harms_no_clean_one(tmp_path, monkeypatch, n_clean, n_spoiled):
    path, out = tmp_path / "events.jsonl", tmp_path / "run"
    mix = mutations.write(path, seed=11, n_clean=n_clean, n_spoiled=n_spoiled)
    verdicts = Verdicts(monkeypatch)
    summary = run_replay(settings(out), events=path)
    accounted(summary, mix, verdicts)
    numbers_are_finite(out, summary)
    assert verdicts.most_mb - verdicts.before_mb < tables_mb(settings(out)) + MAX_BESIDE_MB
    state = newest_state(out)
    accepted = [mix.at_ms[line] for line, (outcome, _) in verdicts.by_line.items() if outcome == "accepted"]
    assert state["watermarks"][SCALARS]["global_ms"] == max(accepted) - BOUND_MS


def accounted(summary: dict[str, Any], mix: mutations.Mix, verdicts: Verdicts) -> None:
    """Each record ended once, as its fate says, and the counts are those of the records."""
    n = len(mix.fates)
    assert sorted(verdicts.by_line) == list(range(n))
    counted = Counter(outcome for outcome, _ in verdicts.by_line.values())
    assert {outcome: summary[outcome] for outcome in OUTCOMES} == {outcome: counted[outcome] for outcome in OUTCOMES}
    assert summary["consumed"] == n
    ended = Counter((fate, *verdicts.by_line[line]) for line, fate in enumerate(mix.fates))
    strayed = {key: times for key, times in ended.items() if key[0] not in ("any", "clean", key[1], key[2])}
    assert strayed == {}
    n_clean = mix.fates.count("clean")
    taken = sum(times for (fate, outcome, _), times in ended.items() if (fate, outcome) == ("clean", "accepted"))
    assert taken >= 0.99 * n_clean


def newest_state(out: Path) -> dict[str, Any]:
    """The components of the last checkpoint."""
    store = FolderCheckpoints(out / "checkpoints")
    return store.load(store.names()[0])[1]


def numbers_are_finite(out: Path, summary: dict[str, Any]) -> None:
    """What the model learned, what it published and what was measured hold no NaN and no infinity."""
    n_slates = 0
    for slate in lines_of(out / "slates.jsonl"):
        n_slates += 1
        assert all(map(math.isfinite, numbers(slate["slots"])))
    assert n_slates > 0
    for line in (summary, *lines_of(out / "metrics.jsonl")):
        assert all(map(math.isfinite, numbers(line)))
    for name, snapshot in newest_state(out).items():
        for column, values in snapshot.items():
            if isinstance(values, np.ndarray) and values.dtype.kind == "f" and (name, column) != ("items", "price"):
                unsaid = (values == UNSAID) if column.endswith(".scored") else False
                assert (np.isfinite(values) | unsaid).all(), (name, column)


def test_a_stream_that_is_mostly_spoiled_is_refused(tmp_path):
    path = tmp_path / "events.jsonl"
    mutations.write(path, seed=12, n_clean=100, n_spoiled=2_000)
    with pytest.raises(InputRefused):
        run_replay(settings(tmp_path / "run"), events=path)
