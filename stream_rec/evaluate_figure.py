"""Estimates as one picture: a point and an interval each, faint where there is no verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stream_rec.report_figure import FAINT, INK

OWN, OTHER = "#E69F00", "#0072B2"
"""What was earned, and what would have been."""
ROW_IN, HEAD_IN, WIDTH_IN = 0.3, 1.0, 9.0


def draw_estimates(rows: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Draw the estimates to the PNG file `path`, a panel for each unit; its folder is made when missing.

    Args:
        rows: as `evaluate.Told` holds them; those without a value are left out.
        path: the picture.
        title: stands above it.
    """
    drawn = sorted((r for r in rows if r["value"] is not None), key=lambda r: str(r["unit"]), reverse=True)
    panels = [(unit, list(those)) for unit, those in groupby(drawn, key=lambda r: str(r["unit"]))]
    height_in = sum(HEAD_IN + ROW_IN * len(those) for _, those in panels) or HEAD_IN
    figure = Figure(figsize=(WIDTH_IN, height_in + 0.4), dpi=120, facecolor="white", layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", size=13, weight="bold", color=INK)
    if panels:
        sizes = [HEAD_IN + ROW_IN * len(those) for _, those in panels]
        grid = figure.add_gridspec(len(panels), 1, height_ratios=sizes)
        for place, (unit, those) in enumerate(panels):
            _panel(figure.add_subplot(grid[place, 0]), those, unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _panel(axes: Axes, rows: Sequence[Mapping[str, Any]], unit: str) -> None:
    for place, row in enumerate(rows):
        own = row["policy"] in ("logged", "arm")
        colour = (OWN if own else OTHER) if row["verdict"] else FAINT
        low, high = row["low"], row["high"]
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot([row["value"]], [place], marker="o" if row["verdict"] else "x", color=colour, markersize=6)
    axes.set_yticks(range(len(rows)), [name_of(row) for row in rows], size=9, color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"reward a {unit}; grey: no verdict", size=9, color=INK)
    axes.grid(axis="x", color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors="#555555", length=3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def name_of(row: Mapping[str, Any]) -> str:
    """What a row is called beside its interval.

    >>> name_of({"group": "all", "estimator": "snips", "policy": "greedy"})
    'snips of greedy'
    """
    words = row["estimator"] if row["policy"] == "arm" else f"{row['estimator']} of {row['policy']}"
    return str(words) if row["group"] == "all" else f"{row['group']}: {words}"
