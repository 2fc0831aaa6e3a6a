"""`stream-rec versions show | diff`: one version with all that is known of it, and what changed between two."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from stream_rec import cli_lists, cli_options, config
from stream_rec.errors import SettingsError
from stream_rec.version_facts import ALIASES, Gathered, gather, meant

Which = Annotated[
    str,
    typer.Argument(metavar="VERSION", help="A version, the beginning of its name, its number, `champion`, `rollback`."),
]
RIVALS = ("against", "judged", "recall difference", "their recall", "visits")
CHANGED = ("what", "before", "after", "change")
GROUPS = ("group", "weights", "norm", "change", "relative")


def show(
    version: Which,
    as_json: cli_options.Json = False,
    out: cli_options.Out = None,
    *,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """One version: where it comes from, why the gate let it serve, and whether its weights are whole.

    The weights file of the run folder is read and compared with the digest that the version's notice told.

    Example: stream-rec versions show 3 --out runs/demo

    stream-rec versions show champion --json
    """
    settings = cli_options.settings_from(config_file, sets, {"run.dir": ("--out", out)})
    from stream_rec import assemble_versions

    gathered = told(settings)
    known = assemble_versions.described(settings, gathered, one_of(settings, gathered, version))
    if as_json:
        sys.stdout.write(json.dumps(known, ensure_ascii=False) + "\n")
        return
    _print_facts(_facts(known))
    verdict = known.get("verdict")
    if isinstance(verdict, Mapping) and verdict.get("rivals"):
        sys.stdout.write("\n")
        rows = [_judged(*pair) for part in ("rivals", "slices") for pair in (verdict.get(part) or {}).items()]
        cli_options.print_rows(rows, RIVALS, False, empty="")


def diff(
    before: Which,
    after: Which,
    as_json: cli_options.Json = False,
    *,
    out: cli_options.Out = None,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """What changed between two versions: settings, offsets, figures, and how far each group of weights moved.

    `relative` is the norm of the change over the norm of the first version's weights; the group that moved furthest
    stands first. Figures are those last reported before the version began to serve.

    Example: stream-rec versions diff rollback champion --out runs/demo
    """
    settings = cli_options.settings_from(config_file, sets, {"run.dir": ("--out", out)})
    from stream_rec import assemble_versions, version_change

    gathered = told(settings)
    names = [one_of(settings, gathered, word) for word in (before, after)]
    known = [assemble_versions.described(settings, gathered, name) for name in names]
    for one in known:
        one["measured"] = assemble_versions.measured_by(settings, one.get("event_at"))
    rows = version_change.told_changed(*known)
    groups = version_change.weights_changed(*(assemble_versions.tensors_of(settings, name) for name in names))
    if as_json:
        whole = {"before": names[0], "after": names[1], "told": rows, "weights": groups}
        sys.stdout.write(json.dumps(whole, ensure_ascii=False) + "\n")
        return
    sys.stdout.write(f"{names[0]} -> {names[1]}\n\n")
    brief = [_in_words(row) for row in rows if "_ndcg_" not in row["what"]]
    cli_options.print_rows(brief, CHANGED, False, empty="nothing was told of either")
    sys.stdout.write("\n")
    cli_options.print_rows(map(_moved, groups), GROUPS, False, empty="neither has weights")


def told(settings: config.Settings) -> Gathered:
    """What was told of every version, in the run folder or the topic."""
    return gather(cli_lists.notices(settings))


def one_of(settings: config.Settings, gathered: Gathered, word: str) -> str:
    """The one version that a word means.

    Raises:
        SettingsError: there are several or none; says which there are.
    """
    names = meant(gathered, word)
    if len(names) == 1:
        return names[0]
    place = cli_lists.place(settings, settings.topics.versions)
    if names:
        raise SettingsError(f"{word} may be {' or '.join(names)} in {place}; give more of its name")
    if word in ALIASES:
        raise SettingsError(f"no version is `{word}` in {place}; `versions list` shows what there is")
    last = f", the last is {list(gathered.told)[-1]}" if gathered.told else ""
    raise SettingsError(f"there is no version {word} in {place}{last}; `versions list --json` names them")


def _facts(known: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    said = known.get("verdict")
    verdict: Mapping[str, Any] = said if isinstance(said, Mapping) else {"verdict": said}
    weights, begins = known["weights"], known.get("tick")
    yield "version", known["version"]
    yield "serves", ("now" if known["serves"] else "no") + _beside(a for a in known["aliases"] if a != "champion")
    yield "event", known.get("event")
    yield "since", None if begins is None else f"tick {begins}, {cli_options.time_text(known.get('event_at'))}"
    yield "parent", known.get("parent") or "none"
    for name, (first, end) in known["offsets"].items():
        yield f"read of {name}", f"{'?' if first is None else first} to {end}"
    yield "event time", " to ".join(cli_options.time_text(at) or "the first" for at in known["event_span"])
    for what in ("records", "examples"):
        total = _whole(known, what)
        if known[what] is not None:
            yield what, f"{known[what]:,} of its own, {total:,} in all"
    yield "settings", known["settings"] or "not known here"
    yield "build", known["build"] or "not known here"
    whose = "of its cut" if known["of_its_cut"] else "the nearest before it"
    yield "checkpoint", f"{known['checkpoint']} ({whose})" if known["checkpoint"] else "none is kept before it"
    yield "verdict", verdict.get("verdict") or "none was asked for"
    yield "reasons", "; ".join(verdict.get("reasons", ())) or None
    yield "weights", weights["file"]
    yield "", "missing" if weights["bytes"] is None else f"{weights['bytes']:,} bytes, {_STATES[weights['state']]}"
    yield "sha256", weights["sha256"]


_STATES = {
    "whole": "whole: they have the digest that was told",
    "differs": "DAMAGED: they have another digest than was told; `versions rebuild` proves what they should be",
    "unproved": "no notice tells their digest",
}


def _beside(aliases: Iterator[str]) -> str:
    names = ", ".join(aliases)
    return f" ({names})" if names else ""


def _whole(known: Mapping[str, Any], what: str) -> int:
    line = known.get("lineage", {})
    return int(line.get("counts", {}).get("consumed", 0) if what == "records" else line.get("n_examples", 0))


def _print_facts(facts: Iterator[tuple[str, Any]]) -> None:
    rows = [(name, cli_options.printable(str(value))) for name, value in facts if value is not None]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        sys.stdout.write(f"{name.ljust(width)}  {value}\n")


def _judged(name: str, cell: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "against": name,
        "judged": cell.get("judged"),
        "recall difference": cli_lists.difference(cell.get("recall_difference"), cell.get("interval")),
        "their recall": "" if (recall := cell.get("rival_recall")) is None else f"{recall:.4f}",
        "visits": cell.get("n_visits"),
    }


def _in_words(row: Mapping[str, Any]) -> dict[str, Any]:
    is_time = row["what"] == "event_at"
    both = {side: cli_options.time_text(row[side]) if is_time else _short(row[side]) for side in ("before", "after")}
    change = row.get("change")
    if is_time and change is not None:
        return {"what": "event time", **both, "change": f"{change / 3_600_000:+,.1f} h"}
    return {"what": row["what"], **both, "change": "" if change is None else f"{change:+,}"}


def _short(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "; ".join(value)
    return f"{value:.4f}" if isinstance(value, float) else value


def _moved(row: Mapping[str, Any]) -> dict[str, Any]:
    relative = "from zero" if row["relative"] is None else f"{row['relative']:.2%}"
    note = f" ({row['note']})" if "note" in row else ""
    numbers = {name: f"{row[name]:.4g}" for name in ("norm", "change")}
    return {"group": row["group"], "weights": f"{row['n']:,}", **numbers, "relative": relative + note}
