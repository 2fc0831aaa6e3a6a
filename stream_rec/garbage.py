"""When the garbage collector looks for cycles: seldom, and in a live worker while nobody waits for it.

Left to its thresholds it stops a tick for a tenth of a second: kafka-python's exceptions hold frames, and frames the
records and slates of their ticks.
"""

from __future__ import annotations

import gc

YOUNG, MIDDLE, ALL = 0, 1, 2
MIDDLE_EVERY, ALL_EVERY = 16, 512


def settle() -> None:
    """Look for cycles once in several ticks instead of several times a tick.

    A tick makes thousands of short-lived tuples and hardly a cycle: at the default threshold the collector walks
    through them again and again and finds nothing (a seventh of the time from bytes to window).
    """
    gc.set_threshold(50_000, 10, 10)


def keep() -> None:
    """Take what is there for lasting: it is not walked through again until `let_go`."""
    gc.collect()
    gc.freeze()


def let_go() -> None:
    """Free what only holds itself, that which was kept too."""
    gc.unfreeze()
    gc.collect()


def tidy(n_times: int) -> None:
    """Look for cycles among what is new, now and then among more.

    Args:
        n_times: how often this was called before.
    """
    gc.collect(ALL if (n_times + 1) % ALL_EVERY == 0 else MIDDLE if (n_times + 1) % MIDDLE_EVERY == 0 else YOUNG)
