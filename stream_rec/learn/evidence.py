"""What closed organic visits say about the challenger, and about what is served.

The learner's lists stand for the challenger that is cut from it, since both were made at the visit's first event. The
rival `yesterday` is not judged: to rank with the champion of the day before would take another scoring of every visit.
Losses too small for one cut show against the pinned baselines, whose comparison goes on over promotions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream_rec.learn.comparison import SLICES, Comparison
from stream_rec.learn.guard import Guard
from stream_rec.learn.pending import Closed
from stream_rec.learn.prequential import MODELS, USER_SLICES, K

Doubles = npt.NDArray[np.float64]

CHALLENGER = MODELS.index("learner")
CHAMPION, YESTERDAY = "champion", "yesterday"
OWN, LINEAR = "own_then_popular_7d", "linear"
SERVED, POPULAR = MODELS.index("served"), MODELS.index("popular_7d")
NEW = USER_SLICES.index("new")
GROUP_OF = {"all": 0, "new_users": 0, "new_items": 1, "head": 2, "tail": 3}
"""Group of targets that a slice of the comparison reads."""


def baselines(*, with_tower: bool) -> tuple[str, ...]:
    """The pinned baselines; the ranker alone is one where there is more."""
    return (OWN, LINEAR) if with_tower else (OWN,)


def compare(comparison: Comparison, closed: Closed) -> None:
    """Count closed visits that took something organic, for every rival but `yesterday`."""
    group = np.array([GROUP_OF[name] for name in SLICES])
    n = closed.n_organic[:, group]
    there = n > 0
    there[:, SLICES.index("new_users")] &= closed.user_slice == NEW
    recall = closed.organic_hits[:, :, group] / np.maximum(np.minimum(n, K), 1)[:, None, :]
    for rival in comparison.rivals:
        if rival != YESTERDAY:
            model = MODELS.index("ranker" if rival == CHAMPION else rival)
            comparison.add(rival, closed.user_key, recall[:, CHALLENGER], recall[:, model], there=there)


def rewards(closed: Closed) -> Doubles:
    """Recall of what was served, of each closed visit for which a slate was in force, in order; float64 [n]."""
    use = closed.had_slate
    out: Doubles = closed.hits[use][:, SERVED, 0] / np.minimum(closed.n_targets[use, 0], K)
    return out


def watch(guard: Guard, closed: Closed) -> int:
    """Count closed visits for which a slate was in force; returns how many."""
    use = closed.had_slate & (closed.n_organic[:, 0] > 0)
    n = np.minimum(closed.n_organic[use, 0], K)[:, None]
    recall: Doubles = closed.organic_hits[use][:, :, 0] / n
    guard.add(closed.user_key[use], recall[:, SERVED], recall[:, POPULAR])
    return int(use.sum())
