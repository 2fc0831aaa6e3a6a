"""`stream-rec evaluate`: what another policy would have earned, from a log of propensities."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_rec import cli_options
from stream_rec.errors import SettingsError

if TYPE_CHECKING:
    from stream_rec.assemble_registry import Shelf

COLUMNS = (
    *("group", "unit", "policy", "estimator", "value", "interval", "n", "ESS", "ESS/N", "largest weight"),
    *("clipped", "refused", "verdict"),
)
ARM_COLUMNS = ("group", "estimator", "value", "interval", "n", "users", "verdict")


class Group(StrEnum):
    """What `--by` groups by."""

    ARM = "arm"


def evaluate(
    log: Annotated[
        Path, typer.Argument(metavar="LOG", help="A run folder, a file of slates, or an Open Bandit log (CSV, folder).")
    ],
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            metavar="NAME",
            help="Slates: logged, greedy, uniform, epsilon:SHARE. Open Bandit: logged, uniform, or the path of another "
            "log, meaning what that one's policy does on average.",
        ),
    ] = "logged",
    events: Annotated[
        Path | None,
        typer.Option("--events", metavar="FILE", help="The events of the run.  [default: the replayed file, if found]"),
    ] = None,
    *,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="LOG", help="Open Bandit: a log of the policy itself, to stand beside."),
    ] = None,
    per_version: Annotated[
        bool, typer.Option("--per-version", help="Also by the model version of the slates.")
    ] = False,
    by: Annotated[
        Group | None, typer.Option("--by", help="Compare the slates' arms; the intervals may be looked at any time.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", metavar="FILE.png", help="Draw the estimates with their intervals.")
    ] = None,
    log_to_mlflow: Annotated[
        bool,
        typer.Option("--log-to-mlflow", help="Write each version's estimates to it in MLflow; implies --per-version."),
    ] = False,
    as_json: cli_options.Json = False,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """Estimate what another policy would have earned, with interval, effective sample size and a verdict or why none.

    A slate counts through an impression that names it; a slot's reward is utility.click x click + utility.purchase x
    purchase within the attribution windows. Slots: replay, ips, snips; slates: full, iips, rips, of which iips varies
    least and rips checks what it assumes. A record does not say what another policy would have put into a slot, so dr
    and switch_dr are told for Open Bandit logs only, where click rates by item and position are the reward model.

    Exit status 3: nothing in the log can be used.

    Example: stream-rec evaluate runs/march --events events.jsonl --policy greedy --figure greedy.png
    """
    settings = cli_options.settings_from(config_file, sets)
    if figure is not None and figure.suffix.lower() != ".png":
        raise SettingsError(f"--figure {figure}: the picture is a PNG; name a file that ends in .png")
    if log_to_mlflow and by is not None:
        raise SettingsError("--log-to-mlflow writes estimates of versions, --by compares arms; leave one of them out")
    from stream_rec import assemble_registry
    from stream_rec import evaluate as evaluation

    shelf = assemble_registry.shelf_of(settings, log) if log_to_mlflow else None
    per_version = per_version or log_to_mlflow
    asked = evaluation.Asked(log, policy, events, against, per_version=per_version, by_arm=by is not None)
    told = evaluation.evaluate(settings, asked)
    told.said |= {} if shelf is None else _logged(shelf, told.rows, policy)
    if figure is not None:
        from stream_rec.evaluate_figure import draw_estimates

        draw_estimates(told.rows, figure, title=f"{told.said['policy']}, from {log.name}")
    if as_json:
        cli_options.print_rows(told.rows, (), True, empty="")
        sys.stdout.write(json.dumps(told.said | {"left_out": told.left_out}, ensure_ascii=False) + "\n")
        return
    columns = ARM_COLUMNS if by is not None else COLUMNS
    cli_options.print_rows([shown(row) for row in told.rows], columns, False, empty="nothing was estimated")
    for line in sentences(told.rows, told.left_out):
        sys.stdout.write(f"{line}\n")
    if figure is not None:
        sys.stdout.write(f"{figure}\n")
    if log_to_mlflow:
        sys.stdout.write(f"written to {told.said['mlflow']}\n")
        if absent := told.said["not_in_mlflow"]:
            sys.stdout.write(f"not in MLflow: {', '.join(absent)}\n")


def _logged(shelf: Shelf, rows: list[dict[str, Any]], policy: str) -> dict[str, Any]:
    """Write the estimates of each version to MLflow; says where, and which versions are not there."""
    from stream_rec.assemble_registry import log_estimates
    from stream_rec.evaluate_figure import draw_estimates

    def draw(version: str, folder: Path) -> Path:
        path = folder / f"off-policy-{policy.replace(':', '-')}.png"
        own = [row for row in rows if row["group"] in ("all", version)]
        draw_estimates(own, path, title=f"{policy}, under {version}")
        return path

    absent = log_estimates(shelf, (row for row in rows if row["group"] not in ("all", "-")), draw)
    return {"mlflow": shelf.shown, "not_in_mlflow": absent}


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as people read it.

    >>> shown({"value": 0.5, "low": None, "high": 1.0, "n": 1234, "verdict": False})["interval"]
    '- to 1.0000'
    """
    ends = " to ".join("-" if row[end] is None else f"{row[end]:.4f}" for end in ("low", "high"))
    out = {
        **row,
        "value": "-" if row["value"] is None else f"{row['value']:.4f}",
        "interval": ends,
        "n": f"{row['n']:,}",
        "verdict": "yes" if row["verdict"] else "no verdict",
    }
    if "ess" in row:
        out |= {"ESS": f"{row['ess']:,.0f}", "ESS/N": f"{row['ess_share']:.1%}"}
        out["largest weight"] = f"{row['largest_weight']:.1f}"
    return out


def sentences(rows: list[dict[str, Any]], left_out: Mapping[str, int]) -> list[str]:
    """Why there is no verdict, what was refused and what did not enter, a line each.

    >>> row = {"verdict": False, "estimator": "ips", "unit": "slot", "group": "all", "reason": "few"}
    >>> sentences([row], {"weak": 2})
    ['no verdict: few (ips a slot)', 'left out: 2 weak']
    """
    reasons: dict[str, list[str]] = {}
    refused: dict[str, int] = {}
    for row in rows:
        if not row["verdict"]:
            group = "" if row["group"] == "all" else f", {row['group']}"
            reasons.setdefault(row["reason"], []).append(f"{row['estimator']} a {row['unit']}{group}")
        if row["group"] == "all" or row["unit"] == "slot":
            for reason, n in row.get("refused_reasons", {}).items():
                refused[reason] = max(n, refused.get(reason, 0))
    lines = [f"no verdict: {reason} ({'; '.join(those)})" for reason, those in reasons.items()]
    if refused:
        lines.append("refused: " + ", ".join(f"{n:,} {reason}" for reason, n in refused.items()))
    if left_out:
        lines.append("left out: " + ", ".join(f"{n:,} {reason}" for reason, n in left_out.items()))
    return lines
