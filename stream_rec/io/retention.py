"""Which checkpoints stay: genesis, the last few, the pinned, one an hour for a day, one a day within the horizon."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from typing import NamedTuple

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
REBUILD_HORIZON_MS = 30 * DAY_MS

_NAME = re.compile(r"(\d+)-[0-9A-Za-z]+")


class Kept(NamedTuple):
    """What retention needs to know of one checkpoint."""

    name: str
    tick: int
    cut_at_ms: int


def tick_of(name: str) -> int | None:
    """Tick number of a checkpoint name `TICK-CHAIN`; None when it is not one.

    >>> tick_of("0000000042-9f86d081884c7d65"), tick_of("lost+found")
    (42, None)
    """
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def newest_first(names: Iterable[str]) -> list[str]:
    """Checkpoint names by tick number, newest first; anything else is left out.

    >>> newest_first(["9-aa", "10-bb", "tmp"])
    ['10-bb', '9-aa']
    """
    known = [(tick, name) for name in names if (tick := tick_of(name)) is not None]
    return [name for _, name in sorted(known, reverse=True)]


def retained(
    checkpoints: Iterable[Kept], keep: int, pinned: Set[str], *, horizon_ms: int = REBUILD_HORIZON_MS
) -> set[str]:
    """Names that stay.

    Args:
        checkpoints: those there are, in any order.
        keep: how many of the newest stay in any case (at least 1).
        pinned: names that stay until unpinned (the cuts of promotions).
        horizon_ms: age, counted back from the newest, beyond which daily ones go.

    The first of each hour and day stays, so that a later checkpoint never displaces one already kept.

    >>> five = [Kept(f"{n}-a", n, n * HOUR_MS // 2) for n in range(5)]
    >>> sorted(retained(five, 1, frozenset()))
    ['0-a', '2-a', '4-a']
    """
    by_age = sorted(checkpoints, key=lambda kept: (kept.tick, kept.name))
    if not by_age:
        return set()
    newest_ms = max(kept.cut_at_ms for kept in by_age)
    stay = {by_age[0].name} | {kept.name for kept in by_age[-max(1, keep) :]}
    stay |= {kept.name for kept in by_age if kept.name in pinned}
    for length_ms, reach_ms in ((HOUR_MS, DAY_MS), (DAY_MS, horizon_ms)):
        oldest = (newest_ms - reach_ms) // length_ms
        first_of: dict[int, str] = {}
        for kept in by_age:
            if kept.cut_at_ms // length_ms >= oldest:
                first_of.setdefault(kept.cut_at_ms // length_ms, kept.name)
        stay |= set(first_of.values())
    return stay
