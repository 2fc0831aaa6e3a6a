"""Examples from the window or the reservoir, to be learned from once more by the tower.

A row of these tables names its history row, and from there the history as of then can be read. Statistics are as of
now and know the example already, so only the tower learns from it, beside a ranker that holds still.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stream_rec.events import MISSING
from stream_rec.learn.examples import ORDER_STAND_IN, VISIT_ROWS, slate_weight
from stream_rec.learn.training import Wanted
from stream_rec.model import ranker
from stream_rec.stream.sampling import hash64, hash_one

if TYPE_CHECKING:
    from stream_rec.stream.intake import Facts

Ints = npt.NDArray[np.int64]
Array = np.ndarray[Any, np.dtype[Any]]

NONE, WINDOW, RESERVOIR = "none", "window", "reservoir"
SEED_ROW, SEED_TASK = 13, 14


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """How much is learned from again."""

    source: str = NONE
    """NONE, WINDOW or RESERVOIR."""
    n_examples: int = 64
    """Examples drawn a tick."""
    seed: int = 0
    exponent: float = 1.0
    """As `weight_of` has it."""


def drawn(facts: Facts, plan: ReplayPlan, *, tick: int, before: int) -> list[Wanted]:
    """Examples drawn from rows of before a tick, at most one `Wanted` a task.

    Each is of the `visit` task, or, by a coin where it followed on something in its visit, of `continue`. Left out
    are rows whose history has been overwritten, whose user is gone or is no user but an order, and whose item's row
    stands for another item.

    Args:
        facts: tables, histories, users and items.
        plan: how many from where.
        tick: number of the tick; seeds the draws.
        before: history serial below which rows are taken.
    """
    table = facts.window if plan.source == WINDOW else facts.reservoir
    rows = table.rows()
    if plan.source == NONE or not len(rows):
        return []
    draws = np.arange(plan.n_examples)
    chosen = rows[(hash64(plan.seed, SEED_ROW, tick, draws) % np.uint64(len(rows))).astype(np.int64)]
    chosen = np.unique(chosen)
    chosen = chosen[_usable(facts, table, chosen, before)]
    if not len(chosen):
        return []
    serial, item = table.serial[chosen], table.item[chosen]
    at = serial % facts.histories.capacity
    pointer, visit = facts.histories.prev[at], facts.histories.visit[at]
    past = facts.histories.gather(pointer, VISIT_ROWS, facts.items.born[: facts.items.n])
    inside = ((past.visit == visit[:, None]) & (past.item >= 0)).any(axis=1)
    coin = hash64(plan.seed, SEED_TASK, tick, serial) % np.uint64(2) == 0
    follows = inside & coin
    earlier = _before_visit(past, visit)
    weight = slate_weight(table.source[chosen], table.position[chosen], plan.exponent)
    out = []
    for task, mine in ((ranker.VISIT, np.flatnonzero(~follows)), (ranker.CONTINUE, np.flatnonzero(follows))):
        if len(mine):
            start = pointer if task == ranker.CONTINUE else earlier
            place = np.arange(len(mine))
            times = table.at_ms[chosen][mine]
            draw = hash_one(plan.seed, SEED_ROW, tick)
            out.append(Wanted(task, start[mine], visit[mine], times, mine, place, item[mine], weight[mine], draw))
    return out


def _usable(facts: Facts, table: Any, rows: Array, before: int) -> Array:
    serial, user = table.serial[rows], np.maximum(table.user[rows], 0)
    use: Array = (serial >= facts.histories.first_serial) & (serial < before)
    use &= facts.histories.live[serial % facts.histories.capacity]
    use &= (table.user[rows] != MISSING) & (facts.users.born[user] == table.user_born[rows])
    use &= facts.users.stand_in[user] < ORDER_STAND_IN
    use &= facts.items.born[table.item[rows]] == table.item_born[rows]
    return use


def _before_visit(past: Any, visit: Ints) -> Ints:
    """Newest of the gathered rows that is of an earlier visit, MISSING where there is none, [B]."""
    earlier = (past.item >= 0) & (past.visit != visit[:, None])
    if not earlier.shape[1]:
        return np.full(len(visit), MISSING, np.int64)
    first = earlier.argmax(axis=1)
    found: Ints = np.where(earlier.any(axis=1), past.serial[np.arange(len(visit)), first], MISSING)
    return found
