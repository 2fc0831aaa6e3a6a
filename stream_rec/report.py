"""`report`: the summary tables and the learning curves of a run folder, made from what the run wrote."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from stream_rec.report_figure import draw_learning
from stream_rec.report_run import read_run, written
from stream_rec.report_table import headline, print_tables


def report(run_dir: Path, console: Console) -> list[Path]:
    """Print the tables of a run and draw `figures/learning.png`; the same folder gives the same tables and curves.

    Returns:
        Paths of everything the run folder holds, the figure first.

    Raises:
        SettingsError: the folder holds no run.
    """
    print_tables(read_run(run_dir), console)
    return draw(run_dir)


def draw(run_dir: Path) -> list[Path]:
    """Draw `figures/learning.png` of a run that has metrics; returns the paths as `report` does.

    Raises:
        SettingsError: the folder holds no run.
    """
    run = read_run(run_dir)
    if run.lines:
        draw_learning(run, run_dir / "figures" / "learning.png", name=run_dir.name)
    return written(run_dir)


def first_line(run_dir: Path) -> str:
    """What the run came to in one line; empty where nothing was measured.

    Raises:
        SettingsError: the folder holds no run.
    """
    return headline(read_run(run_dir).summary)
