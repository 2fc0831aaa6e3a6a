"""Slates that were shown, as columns, and what other policies would have given each drawn slot.

A slot counts where it was drawn by chance with a stated propensity; deterministic ones stay out. The probability under
another policy is told by the record alone: whether the slot is the greedy choice given the slots before (`explored`),
and how many candidates were left (`candidates.admitted` less the slots before). What another policy would have
put there, a record does not say, so there is no reward model and neither `dr` nor `switch_dr`. The other policy is
taken to live under the same rules: what was pinned, capped or safe stays so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_rec.errors import InputRefused, SettingsError
from stream_rec.evaluate_shown import Exposure
from stream_rec.learn.off_policy import Log, SlateLog
from stream_rec.stream.exposures import BOUGHT, CLICKED

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]

POLICIES = ("logged", "greedy", "uniform", "epsilon:SHARE")
NO_SLATE = "impressions of a decision that no slate of the log made"
UNREADABLE = "slates that cannot be read"
NOT_IN_SLATE = "shown items that are not in the slate"
DETERMINISTIC = "shown slots that are deterministic"
NOT_DRAWN = "shown slates without a drawn slot"


class _Slot(msgspec.Struct):
    item_id: str
    propensity: Any = None
    deterministic: Any = False
    explored: Any = None


class _Candidates(msgspec.Struct):
    admitted: Any = None


class _Slate(msgspec.Struct):
    decision_id: str = ""
    slots: list[_Slot] = []
    user_key: str = ""
    model_version: str | None = None
    arm: str | None = None
    candidates: _Candidates | None = None
    tombstone: bool = False
    """A run folder says so that the slate of a key was withdrawn."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Shown slates [n] with at most k slots each, in order of time."""

    reward: Doubles
    """[n, k]; zero where the slot was not shown."""
    logged: Doubles
    """[n, k] propensity given the slots before; 1 where the slot was not drawn or lies behind the last shown one; NaN
    where a drawn slot does not say it."""
    explored: Doubles
    """[n, k] 1 another than the greedy choice, 0 the greedy choice, NaN not said."""
    left: Doubles
    """[n, k] candidates the slot was drawn from; NaN not said."""
    drawn: Bools
    """[n, k]."""
    shown: Bools
    """[n, k]."""
    user: NDArray[np.int64]
    version: tuple[str, ...]
    arm: tuple[str, ...]
    """Empty text where the slate names none."""

    def __len__(self) -> int:
        return len(self.user)

    def part(self, rows: Bools) -> Shown:
        """Some of the slates."""
        at = np.flatnonzero(rows)
        return Shown(
            reward=self.reward[at],
            logged=self.logged[at],
            explored=self.explored[at],
            left=self.left[at],
            drawn=self.drawn[at],
            shown=self.shown[at],
            user=self.user[at],
            version=tuple(self.version[i] for i in at),
            arm=tuple(self.arm[i] for i in at),
        )

    def slots(self, target: Doubles) -> Log:
        """The drawn slots that were shown, one a row."""
        use = self.drawn & self.shown
        user = np.broadcast_to(self.user[:, None], use.shape)
        return Log(self.reward[use], self.logged[use], target[use], user[use])

    def slates(self, target: Doubles) -> SlateLog:
        """The slates with a drawn slot; the reward is that of the drawn slots."""
        use = (self.drawn & self.shown).any(1)
        return SlateLog((self.reward * self.drawn)[use], self.logged[use], target[use], self.user[use])


def shown_slates(
    exposures: Sequence[Exposure], lines: Iterable[bytes], *, click: float, purchase: float, counts: Counter[str]
) -> Shown:
    """Join exposures to the slates that name the same decision.

    Args:
        exposures: in order of time.
        lines: the slates, a record a line.
        click: what a click is worth.
        purchase: what a purchase is worth.
        counts: gets what was left out, by reason.
    """
    found = _found({shown.decision for shown in exposures}, lines, counts)
    pairs: list[tuple[Exposure, _Slate]] = []
    for shown in exposures:
        slate = found.get(shown.decision)
        if slate is None:
            counts[NO_SLATE] += 1
        else:
            pairs.append((shown, slate))
    k = max((len(slate.slots) for _, slate in pairs), default=0)
    out = _blank(pairs, k)
    worth = {0: 0.0, CLICKED: click, BOUGHT: purchase, CLICKED | BOUGHT: click + purchase}
    for row, (shown, slate) in enumerate(pairs):
        _fill(out, row, shown, slate, worth)
        counts[NOT_IN_SLATE] += len(shown.items.keys() - {slot.item_id for slot in slate.slots})
    counts[DETERMINISTIC] += int((out.shown & ~out.drawn).sum())
    counts[NOT_DRAWN] += int((~(out.shown & out.drawn).any(1)).sum())
    return out


def target(shown: Shown, policy: str) -> Doubles:
    """Probability of each slot under a policy given the slots before, float64 [n, k]; 1 where no slot was drawn.

    NaN where the record does not say enough.

    Raises:
        SettingsError: there is no such policy.
        InputRefused: no drawn slot says enough.
    """
    name, _, share = policy.partition(":")
    b = _share(share) if name == "epsilon" else 0.0
    if name not in {"logged", "greedy", "uniform", "epsilon"} or (share and name != "epsilon"):
        raise SettingsError(f"--policy {policy}: there is none of this name for slates; one of {', '.join(POLICIES)}")
    greedy = 1.0 - shown.explored
    uniform = 1.0 / np.where(shown.left >= 1, shown.left, np.nan)
    if name == "logged":
        out = shown.logged
    else:
        out = {"greedy": greedy, "uniform": uniform, "epsilon": (1 - b) * greedy + b * uniform}[name]
        use = shown.drawn & shown.shown
        if use.any() and np.isnan(out[use]).all():
            lacking = "`candidates.admitted`" if name != "greedy" else "`explored`"
            raise InputRefused(
                f"no drawn slot says what {name} would have done: the slates lack {lacking}; evaluate a log of a "
                "worker that explores"
            )
    return np.where(shown.drawn, out, 1.0)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise SettingsError("--policy epsilon:SHARE takes a share from 0 to 1, as in epsilon:0.1")
    return share


def _found(wanted: set[str], lines: Iterable[bytes], counts: Counter[str]) -> dict[str, _Slate]:
    """The slates of the wanted decisions; of equal ids the first."""
    decode, out = msgspec.json.Decoder(_Slate).decode, dict[str, _Slate]()
    for line in lines:
        try:
            slate = decode(line)
        except ValueError:
            slate = _Slate()
        if not slate.tombstone and not (slate.decision_id and slate.slots):
            counts[UNREADABLE] += 1
        elif slate.decision_id in wanted:
            out.setdefault(slate.decision_id, slate)
    return out


def _blank(pairs: Sequence[tuple[Exposure, _Slate]], k: int) -> Shown:
    n = len(pairs)
    users: dict[bytes, int] = {}
    return Shown(
        reward=np.zeros((n, k)),
        logged=np.ones((n, k)),
        explored=np.full((n, k), np.nan),
        left=np.full((n, k), np.nan),
        drawn=np.zeros((n, k), np.bool_),
        shown=np.zeros((n, k), np.bool_),
        user=np.array([users.setdefault(_who(shown, slate), len(users)) for shown, slate in pairs], np.int64),
        version=tuple(slate.model_version or "" for _, slate in pairs),
        arm=tuple(slate.arm or "" for _, slate in pairs),
    )


def _who(shown: Exposure, slate: _Slate) -> bytes:
    """Who saw it: intervals resample users. Where nobody is named, each impression is somebody else."""
    owner = slate.user_key.encode() if slate.user_key not in ("", "*") else shown.user
    return owner or b"?" + shown.decision.encode()


def _fill(out: Shown, row: int, shown: Exposure, slate: _Slate, worth: Mapping[int, float]) -> None:
    places = [place for place, slot in enumerate(slate.slots) if slot.item_id in shown.items]
    admitted = _number(slate.candidates.admitted) if slate.candidates is not None else np.nan
    for place, slot in enumerate(slate.slots[: places[-1] + 1] if places else ()):
        out.left[row, place] = admitted - place
        if isinstance(slot.explored, bool):
            out.explored[row, place] = slot.explored
        if slot.deterministic is not True:
            out.drawn[row, place] = True
            out.logged[row, place] = _number(slot.propensity)
    for place in places:
        out.shown[row, place] = True
        bits = shown.labels.get(slate.slots[place].item_id, 0) & (CLICKED | BOUGHT)
        out.reward[row, place] = worth[bits]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
