"""What a run says of its versions, gathered version by version: from the records of `versions` alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

Notice = Mapping[str, Any]

POINTER, PINNED = "champion", "pinned"
"""Events of the notices that point at a version; what was decided is told beside them."""
SERVING = frozenset({"initial", "promote", "rollback", POINTER})
"""Events of a notice after which its version is the champion."""
AFTERWARDS = frozenset({"rollback", POINTER})
ALIASES = ("champion", "rollback", "pinned")
DAY_MS = 86_400_000
_NUMBER = re.compile(r"\d+")


class Gathered(NamedTuple):
    """What was told of every version."""

    told: dict[str, dict[str, Any]]
    """Version to what its notices say, a later word before an earlier one unless it only points; oldest first."""
    aliases: dict[str, str]
    """Of ALIASES those that name a version now, and which."""

    def names_of(self, version: str) -> list[str]:
        """Aliases of a version."""
        return [alias for alias, whose in self.aliases.items() if whose == version]


def gather(notices: Iterable[Notice]) -> Gathered:
    """Bring the notices of a run together.

    Args:
        notices: records of `versions`, oldest first; of the compacted topic each version's newest is enough.

    >>> gather([{"version": "v0-ab", "event": "initial"}, {"version": "v0-ab", "event": "champion"}]).aliases
    {'champion': 'v0-ab'}
    """
    told: dict[str, dict[str, Any]] = {}
    aliases: dict[str, str] = {}
    back = ""
    for notice in notices:
        name, event = notice.get("version"), notice.get("event")
        if not name:
            continue
        if event == PINNED:
            aliases[PINNED] = name
            continue
        before = told.get(name, {})
        # A pointer repeats the decision beside it and says less; a return does not change where a version comes from.
        told[name] = {**notice, **before} if before and event in AFTERWARDS else {**before, **notice}
        if event in SERVING:
            aliases[POINTER] = name
            back = "" if event == "rollback" or (event == POINTER and before.get("event") != "promote") else back
            back = str(notice.get("parent") or "") if event == "promote" else back
    if back in told:
        aliases["rollback"] = back
    return Gathered(told, {alias: aliases[alias] for alias in ALIASES if alias in aliases})


def meant(gathered: Gathered, word: str) -> list[str]:
    """Versions that a word may mean: an alias, a whole name, a promotion number, the beginning of a name.

    >>> gathered = gather([{"version": "v1-ab", "event": "initial"}, {"version": "v12-cd", "event": "promote"}])
    >>> meant(gathered, "12"), meant(gathered, "v1"), meant(gathered, "champion"), meant(gathered, "rollback")
    (['v12-cd'], ['v1-ab'], ['v12-cd'], [])
    """
    if word in ALIASES:
        return [gathered.aliases[word]] if word in gathered.aliases else []
    if word in gathered.told:
        return [word]
    prefix = f"v{int(word)}" if _NUMBER.fullmatch(word) else word
    return [name for name in gathered.told if begins(name, prefix)]


def begins(name: str, prefix: str) -> bool:
    """Whether a version is meant by the beginning of its name; `v1` is not the beginning of `v12-...`.

    >>> begins("v12-ab", "v12"), begins("v12-ab", "v12-a"), begins("v12-ab", "v1")
    (True, True, False)
    """
    return name.startswith(prefix) if "-" in prefix else name.partition("-")[0] == prefix


def lineage_of(notice: Notice, parent: Notice | None) -> dict[str, Any]:
    """Where a version comes from, beyond its parent.

    Args:
        notice: what was told of the version.
        parent: what was told of the version before it; None: it is the first, or that is not told any more.

    Returns:
        `offsets` by partition [first, next], `event_span` [from, to] in epoch ms, and how many `records` and `examples`
        of its own; the first of a pair is None where it is not known.
    """
    line, before = notice.get("lineage", {}), (parent or {}).get("lineage", {})
    known, first = bool(before), not notice.get("parent")
    starts = before.get("next", {})
    return {
        "offsets": {
            name: [starts.get(name, 0) if known or first else None, end] for name, end in line.get("next", {}).items()
        },
        "event_span": [parent.get("event_at") if parent else None, notice.get("event_at")],
        "records": _gain(line.get("counts", {}).get("consumed"), before.get("counts", {}).get("consumed")),
        "examples": _gain(line.get("n_examples"), before.get("n_examples")),
    }


def _gain(now: int | None, before: int | None) -> int | None:
    return None if now is None else now - (before or 0)


def kept(told: Mapping[str, Notice], named: Collection[str], keep_last: int) -> set[str]:
    """Versions that stay: those that have a name people use, the last ones, and the last of each day of event time.

    Args:
        told: as `Gathered.told` has it, oldest first.
        named: versions with an alias.
        keep_last: how many of the newest stay.

    >>> hours = {f"v{n}": {"event_at": n * 3_600_000, "tick": n} for n in range(50)}
    >>> sorted(kept(hours, {"v1"}, 2))
    ['v1', 'v23', 'v47', 'v48', 'v49']
    """
    order = sorted(told, key=lambda name: told[name].get("tick", 0))
    last_of_day = {int(told[name].get("event_at", 0)) // DAY_MS: name for name in order}
    return {
        *(order[-keep_last:] if keep_last else ()),
        *last_of_day.values(),
        *(name for name in named if name in told),
    }
