"""Pictures of a version beside the learning curves: whether its probabilities hold, how much of the shop is shown."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stream_rec.report_figure import COLOURS, DATES, DAY_MS, FAINT, INK
from stream_rec.report_run import LABELS, LEARNED, SERVED, Floats, Run

SIZE_IN = (11.0, 4.6)
HEADS = {"click": "Clicks", "purchase": "Purchases"}
OF = {"champion": ("the version before", FAINT), "learner": ("this version", COLOURS[SERVED])}
"""A version is a frozen learner: what the learner predicted before the cut was this version's."""
SHOWN = (*LEARNED, "popular_7d", "own_then_popular_7d")
Z = 1.959964
"""Of a 95 % interval."""
FEWEST = 20
"""Examples of a bin that is drawn."""


def draw_calibration(run: Run, path: Path) -> bool:
    """Draw predicted against seen probabilities of shown slots, of the lines since the version before or the last day.

    Args:
        run: at the tick of the version.
        path: the PNG file.

    Returns:
        Whether there was anything to draw.
    """
    newest_ms = run.lines[-1]["event_at"]
    before_ms = run.promoted_at_ms[-2] if len(run.promoted_at_ms) > 1 else 0
    run = run.inside(min(before_ms, newest_ms - DAY_MS), newest_ms)
    told = {head: {model: _bins(run, head, model) for model in OF} for head in HEADS}
    if not any(len(bins) for models in told.values() for bins in models.values()):
        return False
    figure = Figure(figsize=SIZE_IN, dpi=120, facecolor="white", layout="constrained")
    for axes, (head, models) in zip(figure.subplots(1, len(told)), told.items(), strict=True):
        _calibration(axes, models, HEADS[head])
    first, last = (datetime.fromtimestamp(run.lines[end]["event_at"] / 1000, UTC) for end in (0, -1))
    words = f"Predicted before it was known, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"
    figure.suptitle(words, x=0.01, ha="left", size=9.5, color=FAINT)
    figure.savefig(path, format="png")
    return True


def wilson(positive: Floats, n: Floats) -> tuple[Floats, Floats]:
    """95 % intervals of shares (Wilson 1927).

    >>> [end.round(4).tolist() for end in wilson(np.array([0.0, 5.0]), np.array([10.0, 10.0]))]
    [[0.0, 0.2366], [0.2775, 0.7634]]
    """
    share, more = positive / n, Z * Z / n
    centre = (share + more / 2) / (1 + more)
    half = Z * np.sqrt(share * (1 - share) / n + more / (4 * n)) / (1 + more)
    return centre - half, centre + half


def _bins(run: Run, head: str, model: str) -> Floats:
    """Examples, predicted and positives of each bin, [bins, 3]; bins of different lines meet by what they predict."""
    told = [line.get("heads", {}).get(head, {}).get(model, {}).get("bins") or [] for line in run.lines]
    rows = np.array([row for bins in told for row in bins], np.float64).reshape(-1, 3)
    share = np.clip(rows[:, 1] / np.maximum(rows[:, 0], 1), 1e-6, 1 - 1e-6)
    place = np.floor(2 * np.log(share / (1 - share))).astype(np.int64)
    sums = np.array([rows[place == one].sum(axis=0) for one in np.unique(place)], np.float64).reshape(-1, 3)
    return sums[sums[:, 0] >= FEWEST]


def _calibration(axes: Axes, models: dict[str, Floats], title: str) -> None:
    ends: list[float] = []
    for (model, bins), shift in zip(models.items(), (0.97, 1.03), strict=True):
        if not len(bins):
            continue
        n, predicted, positive = bins.T
        (low, high), at = wilson(positive, n), shift * predicted / n
        name, colour = OF[model]
        axes.vlines(at, np.maximum(low, 1e-6), high, color=colour, linewidth=1.6, alpha=0.8)
        there = positive > 0
        axes.scatter(at[there], (positive / n)[there], color=colour, s=34, zorder=3, label=name)
        ends += [*at, *high, *(positive / n)[there]]
    if ends:
        extent = max(min(ends) / 2, 1e-5), min(max(ends) * 1.5, 1.0)
        axes.plot(extent, extent, color=INK, linewidth=0.8, linestyle=":")
        axes.set(xscale="log", yscale="log", xlim=extent, ylim=extent)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _place: f"{value:.2g}")
        axes.legend(frameon=False, fontsize=9, loc="upper left")
    else:
        axes.text(0.5, 0.5, "too few are known", transform=axes.transAxes, ha="center", color=FAINT)
    axes.set_xlabel("predicted", size=9, color=INK)
    axes.set_ylabel("seen, with 95 % interval", size=9, color=INK)
    _plain(axes, f"{title} of shown slots")


def draw_coverage(run: Run, path: Path) -> bool:
    """Draw how much of the catalogue the lists show, and how unequally; says whether there was anything to draw."""
    reach = [line.get("reach", {}) for line in run.lines]
    models = [model for model in SHOWN if any(model in told for told in reach)]
    if not models:
        return False
    figure = Figure(figsize=SIZE_IN, dpi=120, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name in ((left, "coverage"), (right, "gini")):
        for model in models:
            value = np.array([told.get(model, {}).get(name, np.nan) for told in reach])
            colour, thick = COLOURS.get(model, FAINT), 2.6 if model == SERVED else 1.5
            axes.plot(run.times_ms() / DAY_MS, value, color=colour, linewidth=thick, label=LABELS.get(model, model))
        axes.set_ylim(0.0, 1.02)
        locator = DATES.AutoDateLocator(minticks=3, maxticks=7)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(DATES.ConciseDateFormatter(locator))
    left.yaxis.set_major_formatter(lambda value, _place: f"{value:.0%}")
    left.legend(frameon=False, fontsize=9)
    _plain(left, "Coverage: share of the items ever in a list")
    _plain(right, "Exposure: Gini index of times shown (0 = all alike)")
    figure.savefig(path, format="png")
    return True


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", size=10.5, weight="bold", color=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors="#555555", length=3)
