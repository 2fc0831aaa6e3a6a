"""The learning curves of a run as one picture: how good, how clicked, how much, what was turned away."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib.dates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stream_rec.report_run import LABELS, LEARNED, SERVED, Floats, Run, moving_average

DATES: Any = matplotlib.dates
"""Its classes have no types."""

# Colours that people with colour-blindness tell apart (Okabe and Ito 2008).
COLOURS = {
    SERVED: "#0072B2",
    "ranker": "#56B4E9",
    "popular_7d": "#E69F00",
    "popular_decayed": "#B8860B",
    "cooccurrence": "#009E73",
    "repeat": "#CC79A7",
    "own_then_popular_7d": "#D55E00",
}
TURNED_AWAY = {"duplicate": "#999999", "late": "#E69F00", "dead_lettered": "#D55E00", "ignored": "#56B4E9"}
INK, FAINT = "#222222", "#8a8a8a"
WINDOW_SHARE = 1 / 20
"""Share of the run that a moving average looks back over."""
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
STEPS = {"hour": float(HOUR_MS), "day": float(DAY_MS), "week": 7.0 * DAY_MS}
SIZE_IN = (12.5, 9.6)
LABEL_IN = 0.165
"""Least distance of two line labels, in inches."""


def draw_learning(run: Run, path: Path, *, name: str = "") -> None:
    """Draw the learning curves of `run` to the PNG file `path`; its folder is made when missing."""
    extent_ms = run.extent_ms()
    run = run.inside(*extent_ms)
    window_ms = max(1.0, (extent_ms[1] - extent_ms[0]) * WINDOW_SHARE)
    figure = Figure(figsize=SIZE_IN, dpi=120, facecolor="white")
    grid = figure.add_gridspec(3, 2, height_ratios=(1.75, 1, 1), left=0.05, right=0.845, top=0.915, bottom=0.04)
    grid.update(hspace=0.4, wspace=0.5)
    top = figure.add_subplot(grid[0, :])
    _recall(top, run, "next_visit", window_ms=window_ms, most=9)
    _versions(top, run)
    _recall(figure.add_subplot(grid[1, 0]), run, "next_item", window_ms=window_ms, most=4)
    _clicks(figure.add_subplot(grid[1, 1]), run, window_ms=window_ms)
    _volume(figure.add_subplot(grid[2, 0]), run, span_ms=extent_ms[1] - extent_ms[0])
    _turned_away(figure.add_subplot(grid[2, 1]), run, window_ms=window_ms)
    for axes in figure.axes:
        _dress(axes, extent_ms)
    title = f"What the run learned: {name}" if name else "What the run learned"
    figure.text(0.05, 0.965, title, size=16, weight="bold", color=INK)
    figure.text(0.985, 0.965, _caption(extent_ms, window_ms), size=9.5, color=FAINT, ha="right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _recall(axes: Axes, run: Run, task: str, *, window_ms: float, most: int) -> None:
    """Recall of every model on one task; what learns in front, each line named at its end."""
    times_ms, curves = run.times_ms(), {}
    for model in run.models(task):
        n, value = run.measure(task, model)
        if n.sum() > 0 and model != "learner":
            least = WINDOW_SHARE * n.sum() / 4
            curves[model] = moving_average(times_ms, n, value, window_ms=window_ms, least=least)
    ends = {model: _last(curve) for model, curve in curves.items()}
    shown = [m for m in curves if m in LEARNED]
    shown += sorted((m for m in curves if m not in LEARNED), key=lambda m: -ends[m])[: most - len(shown)]
    for model in reversed(shown):
        thick = model == SERVED or (model == "ranker" and SERVED not in curves)
        axes.plot(
            _dates(times_ms),
            curves[model],
            color=COLOURS.get(model, FAINT),
            linewidth=2.8 if thick else 1.5,
            alpha=1.0 if model in LEARNED else 0.85,
            zorder=3 if model in LEARNED else 2,
            solid_capstyle="round",
        )
    axes.set_ylim(bottom=0.0)
    if task == "next_visit":
        _title(axes, "Recall@20 at the next visit, scored before its first event", size=12)
    else:
        _title(axes, "Recall@20 at the next item, scored before its event")
    _name_lines(axes, {LABELS.get(m, m): (ends[m], COLOURS.get(m, FAINT)) for m in shown})
    if not shown:
        _nothing(axes)


def _clicks(axes: Axes, run: Run, *, window_ms: float) -> None:
    """Share of the shown slates that were clicked, over time."""
    shown = run.count("impressions")
    if shown.sum() > 0:
        rate = run.count("clicks") / np.maximum(shown, 1)
        least = WINDOW_SHARE * shown.sum() / 4
        curve = moving_average(run.times_ms(), shown, rate, window_ms=window_ms, least=least)
        axes.plot(_dates(run.times_ms()), curve, color=COLOURS[SERVED], linewidth=2.4)
        axes.set_ylim(bottom=0.0)
        axes.yaxis.set_major_formatter(lambda value, _place: f"{value:.0%}")
        _name_lines(axes, {"clicked": (_last(curve), COLOURS[SERVED])}, form="{:.1%}")
    else:
        _nothing(axes, "this input has no impressions")
    _title(axes, "Click rate: shown slates with a click")


def _volume(axes: Axes, run: Run, *, span_ms: float) -> None:
    """Records consumed by hour, day or week of event time, and the lag where it is known."""
    times_ms, consumed = run.times_ms(), run.count("consumed")
    name, step_ms = next((name, ms) for name, ms in STEPS.items() if span_ms <= 80 * ms or name == "week")
    # A line counts what came since the line before it, so its records are spread over that time.
    before_ms = times_ms[0] - (times_ms[-1] - times_ms[0]) / max(1, len(times_ms) - 1)
    edges_ms = np.arange(times_ms[0] // step_ms, times_ms[-1] // step_ms + 2) * step_ms
    known = np.concatenate([[before_ms], times_ms]), np.concatenate([[0.0], np.cumsum(consumed)])
    total = np.diff(np.interp(edges_ms, *known))
    axes.bar(_dates(edges_ms[:-1]), total, width=0.86 * step_ms / DAY_MS, align="edge", color="#9ecae1")
    axes.yaxis.set_major_formatter(lambda value, _place: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    _title(axes, f"Records consumed a {name} of event time")
    lag = run.count("lag")
    if lag.any():
        twin = axes.twinx()
        twin.plot(_dates(times_ms), lag, color=COLOURS["own_then_popular_7d"], linewidth=1.2)
        twin.set_ylim(bottom=0.0)
        twin.set_ylabel("lag, records", color=COLOURS["own_then_popular_7d"], size=9)


def _turned_away(axes: Axes, run: Run, *, window_ms: float) -> None:
    """Records that were not accepted, by outcome, per thousand consumed."""
    consumed, labels = run.count("consumed"), {}
    for outcome, colour in TURNED_AWAY.items():
        count = run.count(outcome)
        if count.sum() > 0:
            share = 1000 * count / np.maximum(consumed, 1)
            least = WINDOW_SHARE * consumed.sum() / 4
            curve = moving_average(run.times_ms(), consumed, share, window_ms=window_ms, least=least)
            axes.plot(_dates(run.times_ms()), curve, color=colour, linewidth=1.8)
            labels[outcome.replace("_", " ")] = (_last(curve), colour)
    axes.set_ylim(bottom=0.0)
    _title(axes, "Not accepted, per 1,000 records")
    _name_lines(axes, labels, form="{:.1f}")
    if not labels:
        _nothing(axes, "every record was accepted")


def _versions(axes: Axes, run: Run) -> None:
    """A tick at the foot of the axes for every promotion."""
    promoted = np.array(run.promoted_at_ms, dtype=np.float64)
    if len(promoted):
        foot = axes.get_xaxis_transform()
        axes.vlines(_dates(promoted), 0.0, 0.035, transform=foot, color=INK, linewidth=1.1, zorder=4)
        words = "1 version promoted" if len(promoted) == 1 else f"{len(promoted)} versions promoted"
        axes.text(0.008, 0.05, f"| {words}", transform=axes.transAxes, size=9, color=INK, va="bottom")


def _name_lines(axes: Axes, ends: dict[str, tuple[float, str]], *, form: str = "{:.3f}") -> None:
    """Write each line's name and last value at its right end, kept apart where they would touch."""
    low, high = axes.get_ylim()
    gap = LABEL_IN / (axes.get_position().height * SIZE_IN[1]) * (high - low)
    ordered = sorted(ends.items(), key=lambda item: item[1][0])
    places = _apart([value for _label, (value, _colour) in ordered], gap)
    for (label, (value, colour)), place in zip(ordered, places, strict=True):
        where, text = (1.008, place), f"{form.format(value)} {label}"
        axes.annotate(
            text, where, xycoords=("axes fraction", "data"), size=9, color=colour, va="center", annotation_clip=False
        )


def _apart(values: list[float], gap: float) -> list[float]:
    """Places for ascending values, moved as little as need be so that neighbours are at least `gap` apart.

    >>> _apart([1.0, 1.0, 5.0], 1.0)
    [0.5, 1.5, 5.0]
    """
    groups: list[list[float]] = []
    for value in values:
        groups.append([value])
        while (
            len(groups) > 1
            and _centre(groups[-1]) - _centre(groups[-2]) < gap * (len(groups[-1]) + len(groups[-2])) / 2
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_centre(g) + gap * (i - (len(g) - 1) / 2) for g in groups for i in range(len(g))]


def _centre(group: list[float]) -> float:
    return sum(group) / len(group)


def _dress(axes: Axes, extent_ms: tuple[float, float]) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#bbbbbb")
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors="#555555", length=3)
    axes.set_xlim(*_dates(np.array(extent_ms)).tolist())
    locator = DATES.AutoDateLocator(minticks=4, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(DATES.ConciseDateFormatter(locator, show_offset=False))


def _title(axes: Axes, words: str, *, size: float = 10.5) -> None:
    axes.set_title(words, loc="left", size=size, weight="bold", color=INK)


def _nothing(axes: Axes, words: str = "nothing measured") -> None:
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", color=FAINT)
    axes.set_yticks([])


def _caption(extent_ms: tuple[float, float], window_ms: float) -> str:
    begin, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in extent_ms)
    days = window_ms / DAY_MS
    window = f"{days:.1f} days" if days >= 1 else f"{window_ms / HOUR_MS:.1f} hours"
    return f"{begin:%Y-%m-%d} to {end:%Y-%m-%d} (event time, UTC); lines look back over {window}"


def _last(curve: Floats) -> float:
    measured = curve[~np.isnan(curve)]
    return float(measured[-1]) if len(measured) else 0.0


def _dates(times_ms: Floats) -> Any:
    """Matplotlib's dates: days since 1970."""
    return times_ms / DAY_MS
