"""What one tick gives the learner, as columns: the positives, the visits it opened and the retractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from stream_rec.model.features import History
from stream_rec.stream.joins import Matured

if TYPE_CHECKING:
    from stream_rec.learn.training import Wanted

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]
Small = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class HistoryReader(Protocol):
    """Reads users' histories as of a pointer."""

    def gather(self, start: Ints, limit: int, born: Ints | None = None) -> History:
        """Up to `limit` rows of each chain that begins at `start`; rows older than their item's birth are masked."""
        ...


@dataclass(frozen=True, slots=True)
class Positives:
    """Positive events in processing order, every column [P]."""

    user: Rows
    """Users row; MISSING where the event names nobody."""
    user_key: Ints
    """Stable 63-bit digest of the user, for hash samples and the bootstrap."""
    stand_in: Small
    item: Rows
    at_ms: Ints
    kind: Small
    serial: Ints
    """Its row in the histories."""
    before: Ints
    """The user's history pointer before this event; MISSING when there is none."""
    visit: Ints
    """Visit serial; MISSING where there is no visit."""
    visit_before: Ints
    """The user's history pointer before the first event of this visit."""
    source: Small
    """0 organic, 1 slate, 2 explored."""
    position: npt.NDArray[np.int16]
    """Slot of the slate that caused it, 0-based; MISSING when organic."""
    event: Ints

    def __len__(self) -> int:
        return len(self.item)


@dataclass(frozen=True, slots=True)
class Visits:
    """Visits that this tick opened (by any event), every column [V]."""

    visit: Ints
    user: Rows
    user_key: Ints
    stand_in: Small
    start_at_ms: Ints
    before: Ints
    """History pointer before the visit's first event."""
    served: Rows
    """[V, n_slots] the slate in force at the first event, padded with MISSING."""

    def __len__(self) -> int:
        return len(self.visit)


@dataclass(frozen=True, slots=True)
class Retractions:
    """Purchases taken back by a refund or cancellation, every column [R]."""

    user: Rows
    item: Rows
    at_ms: Ints
    """Event time of the purchase that is taken back, not of the refund."""
    visit: Ints
    """Visit of the purchase."""
    pointer: Ints
    """The user's newest history pointer, from which the rest of that visit is read."""
    serial: Ints
    """History row of the purchase."""

    def __len__(self) -> int:
        return len(self.item)


@dataclass(frozen=True, slots=True)
class TickBatch:
    """One tick as the learner sees it."""

    number: int
    watermark_ms: int
    cut_at_ms: int
    positives: Positives
    visits: Visits
    retractions: Retractions
    replayed: Sequence[Wanted] = ()
    """Earlier examples to be learned from once more."""
    shown: Matured | None = None
    """Impressions whose waits have closed; None: there are none."""
    lagging: bool = False
    """Thins the training to a quarter."""


COLUMN_TYPES: dict[str, Any] = {
    "user": np.int32, "user_key": np.int64, "stand_in": np.int8, "item": np.int32, "at_ms": np.int64,
    "kind": np.int8, "serial": np.int64, "before": np.int64, "visit": np.int64, "visit_before": np.int64,
    "source": np.int8, "position": np.int16, "event": np.int64, "start_at_ms": np.int64, "pointer": np.int64,
}  # fmt: skip
"""Type of every column of a batch, by its name."""


def no_positives() -> Positives:
    """A tick without positives.

    >>> len(no_positives())
    0
    """
    return Positives(**{name: np.zeros(0, COLUMN_TYPES[name]) for name in Positives.__dataclass_fields__})


def no_visits(n_slots: int = 20) -> Visits:
    """A tick that opened no visit."""
    names = [name for name in Visits.__dataclass_fields__ if name != "served"]
    return Visits(**{name: np.zeros(0, COLUMN_TYPES[name]) for name in names}, served=np.zeros((0, n_slots), np.int32))


def no_retractions() -> Retractions:
    """A tick without retractions."""
    return Retractions(**{name: np.zeros(0, COLUMN_TYPES[name]) for name in Retractions.__dataclass_fields__})
