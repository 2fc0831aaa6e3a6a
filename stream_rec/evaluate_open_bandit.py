"""Logs in the form of the Open Bandit Dataset (Saito, Aihara, Matsutani, Narita, arXiv 2008.07146).

A row is a shown item with its position, whether it was clicked and the propensity with which it was chosen there. The
policies compared are free of context: what counts of the other one is how it fills a position on average.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_rec.errors import InputRefused
from stream_rec.learn.off_policy import Log
from stream_rec.stream.sampling import hash01

COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score")
"""By these a log is known; it may have others."""
N_FOLDS = 5
PRIOR_ROWS = 50.0
"""Rows that weigh as much as the belief that an item is like all others at its position."""

Doubles = NDArray[np.float64]


class OpenBandit(NamedTuple):
    """A log as columns [n]."""

    visitor: NDArray[np.int64]
    """Rows of one moment are those of one visitor."""
    place: NDArray[np.int64]
    """Index into `places`."""
    item: NDArray[np.int64]
    """Index into `items`."""
    click: Doubles
    """NaN where it is no number."""
    propensity: Doubles
    """NaN where it is no number."""
    places: tuple[str, ...]
    items: tuple[str, ...]
    n_unreadable: int
    """Rows that do not have the columns of the first line."""


def read(header: Sequence[str], rows: Iterable[Sequence[str] | None]) -> OpenBandit:
    """The log in rows of text; None stands for a row that could not be split.

    >>> log = read(COLUMNS, [["t", "7", "1", "0", "0.5"], None])
    >>> log.items, log.propensity.tolist(), log.n_unreadable
    (('7',), [0.5], 1)
    """
    at, n_unreadable = [list(header).index(name) for name in COLUMNS], 0
    kept: list[list[str]] = []
    for row in rows:
        if row is None or len(row) != len(header):
            n_unreadable += 1
        else:
            kept.append([row[k].strip() for k in at])
    times, items, places, clicks, chances = zip(*kept, strict=True) if kept else ((), (), (), (), ())
    (_, visitor), (place_names, place), (item_names, item) = (_numbered(texts) for texts in (times, places, items))
    return OpenBandit(visitor, place, item, _floats(clicks), _floats(chances), place_names, item_names, n_unreadable)


def uniform(log: OpenBandit, other: OpenBandit | None = None) -> Doubles:
    """Probability of each row's item where every item of the logs is as likely at every position; float64 [n]."""
    n_items = len({*log.items, *(other.items if other else ())})
    return np.full(len(log.item), 1.0 / max(n_items, 1))


def as_in(log: OpenBandit, other: OpenBandit) -> Doubles:
    """Probability of each row's item at its position under the other log's policy on average; float64 [n].

    NaN where the other log has not shown the item there. A row is likelier to be seen where its propensity was high,
    so the plain mean of a changing propensity is too large: rows count by 1 / propensity, which is the harmonic mean,
    and the items of a position are brought to a sum of one.

    Raises:
        InputRefused: the other log has no usable propensity.
    """
    usable = np.isfinite(other.propensity) & (other.propensity > 0) & (other.propensity <= 1)
    if not usable.any():
        raise InputRefused("the other log has no row with a propensity in (0, 1]; give one of the policy meant")
    cell = (other.place * len(other.items) + other.item)[usable]
    size = len(other.places) * len(other.items)
    n, rounds = np.bincount(cell, minlength=size), np.bincount(cell, 1.0 / other.propensity[usable], minlength=size)
    mean = np.where(n > 0, n / np.maximum(rounds, 1e-300), np.nan).reshape(len(other.places), len(other.items))
    mean /= np.maximum(np.nansum(mean, axis=1, keepdims=True), 1e-300)
    padded = np.pad(mean, ((0, 1), (0, 1)), constant_values=np.nan)
    place = np.array([_index(other.places, name) for name in log.places], np.intp)
    item = np.array([_index(other.items, name) for name in log.items], np.intp)
    return np.asarray(padded[place[log.place], item[log.item]])


def log_of(log: OpenBandit, target: Doubles, whole: Doubles | None) -> Log:
    """What `learn.off_policy` evaluates; with `whole` it has a reward model, the click rates of other rows.

    Args:
        log: what was logged.
        target: float64 [n], probability of each row's item under the target policy.
        whole: float64 [places, items], the target policy as a table; None where the table is not known whole.
    """
    if whole is None:
        return Log(log.click, log.propensity, target, log.visitor)
    rates, fold = _rates(log)
    expected = np.einsum("pi,fpi->fp", whole, rates)
    return Log(
        log.click, log.propensity, target, log.visitor, rates[fold, log.place, log.item], expected[fold, log.place]
    )


def table(log: OpenBandit, target: Doubles) -> Doubles | None:
    """The target policy as probabilities [places, items]; None where it gives weight to what the log has not shown."""
    if not len(target):
        return None
    out = np.zeros((len(log.places), len(log.items)))
    out[log.place, log.item] = target
    return out if np.isfinite(out).all() and np.allclose(out.sum(1), 1.0, atol=1e-6) else None


def _rates(log: OpenBandit) -> tuple[Doubles, NDArray[np.int64]]:
    """Click rates [folds, places, items] of the rows outside each fold, drawn towards the position's; fold of rows."""
    fold = (hash01(1, log.visitor) * N_FOLDS).astype(np.int64)
    shape, sound = (N_FOLDS, len(log.places), len(log.items)), np.isfinite(log.click)
    cell = np.ravel_multi_index((fold, log.place, log.item), shape)[sound]
    size = int(np.prod(shape))
    n = np.bincount(cell, minlength=size).reshape(shape).astype(np.float64)
    clicks = np.bincount(cell, log.click[sound], minlength=size).reshape(shape)
    n, clicks = n.sum(0) - n, clicks.sum(0) - clicks
    common = clicks.sum(2, keepdims=True) / np.maximum(n.sum(2, keepdims=True), 1.0)
    return (clicks + PRIOR_ROWS * common) / (n + PRIOR_ROWS), fold


def _numbered(texts: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The different texts in the order of their first row, and the number of each row's."""
    names: dict[str, int] = {}
    numbers = np.array([names.setdefault(text, len(names)) for text in texts], np.int64)
    return tuple(names), numbers


def _floats(texts: Sequence[str]) -> Doubles:
    return np.array([_float(text) for text in texts], np.float64)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _index(names: Sequence[str], name: str) -> int:
    """Place of a name; the last place of a padded table where it is unknown."""
    return names.index(name) if name in names else -1
