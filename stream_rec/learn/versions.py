"""The three parameter sets: the learner changes, a challenger is cut from it, the champion serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt

from stream_rec.component import Component, digest
from stream_rec.learn.gate import PairedRecall, verdict
from stream_rec.model.ranker import Learner, Weights

if TYPE_CHECKING:
    from stream_rec.model.two_tower import TwoTower

Tensors = dict[str, npt.NDArray[Any]]


class Cut(NamedTuple):
    """What a cut gave."""

    version: str
    tensors: Tensors
    verdict: dict[str, Any]


class Progress(Component):
    """Where the learning is: counts and which version serves."""

    half = "learned"
    scalars = ("n_examples", "n_since_cut", "n_cuts", "n_promotions", "champion", "challenger", "n_steps")

    def __init__(self, champion: str) -> None:
        self.n_examples = self.n_since_cut = self.n_cuts = self.n_promotions = self.n_steps = 0
        self.champion = champion
        self.challenger = ""
        """Empty while none waits for its weights to be durable."""


class Versions:
    """Cuts challengers from the learner and promotes them.

    Args:
        cut_examples: positives between two cuts.
        seed: of the bootstrap.
        rate: step size of the learner.
        paired_visits: visits the comparison holds.
        tower: the text tower, whose parameter sets go with the ranker's; None: there is none.

    >>> versions = Versions(cut_examples=10)
    >>> versions.champion_version[:3]
    'v0-'
    """

    def __init__(
        self,
        cut_examples: int = 10_000,
        seed: int = 0,
        rate: float = 0.02,
        *,
        paired_visits: int = 10_000,
        tower: TwoTower | None = None,
    ) -> None:
        self.cut_examples, self.seed, self.tower = cut_examples, seed, tower
        self.learner = Learner(rate)
        self.linear = Learner(rate) if tower is not None else None
        """`linear` learns without the tower, to be measured against."""
        self.challenger, self.champion = Weights(), Weights()
        self.paired = PairedRecall(paired_visits)
        self.progress = Progress(version_id(0, self.tensors("champion")))

    @property
    def champion_version(self) -> str:
        """Version that serves."""
        return self.progress.champion

    def count(self, n_examples: int) -> None:
        """Say how many examples the stream gave."""
        self.progress.n_examples += n_examples
        self.progress.n_since_cut += n_examples
        if self.tower is not None:
            self.tower.count(n_examples)

    def cut_due(self) -> bool:
        """Whether enough examples came since the last cut and no challenger is waiting."""
        due = self.progress.n_since_cut >= self.cut_examples or (self.tower is not None and self.tower.ready)
        return due and not self.progress.challenger

    def cut(self) -> Cut:
        """Freeze a copy of the learner as the challenger and judge it.

        A challenger with weights that are not finite is rejected and the learner returns to the champion.
        """
        p = self.progress
        self.challenger.value = self.learner.value.copy()
        if self.tower is not None:
            self.tower.cut()
        tensors = self.tensors("challenger")
        version = version_id(p.n_promotions + 1, tensors)
        record = verdict(tensors, self.paired.interval(self.seed * 1_000_003 + p.n_cuts))
        p.n_since_cut, p.n_cuts = 0, p.n_cuts + 1
        if record["verdict"] == "promote":
            p.challenger = version
        else:
            self.learner.reset(self.champion.value)
            if self.tower is not None:
                self.tower.reset()
        return Cut(version, tensors, {"version": version, "parent": p.champion, **record})

    def promote(self, version: str) -> bool:
        """Make the waiting challenger the champion; False when `version` is not the one that waits."""
        p = self.progress
        if not version or version != p.challenger:
            return False
        self.champion.value = self.challenger.value.copy()
        if self.tower is not None:
            self.tower.promote()
        p.champion, p.challenger, p.n_promotions = version, "", p.n_promotions + 1
        self.paired.clear()
        return True

    def tensors(self, which: str) -> Tensors:
        """What the weight file of a parameter set holds; `which` is `champion` or `challenger`."""
        weights: Weights = getattr(self, which)
        return {"ranker": weights.value.copy(), **(self.tower.tensors(which) if self.tower is not None else {})}

    def components(self) -> dict[str, Component]:
        """State of this room by name."""
        return {
            **({"linear": self.linear} if self.linear is not None else {}),
            "learner": self.learner,
            "challenger": self.challenger,
            "champion": self.champion,
            "paired_recall": self.paired,
            "progress": self.progress,
        }


def version_id(counter: int, tensors: Tensors) -> str:
    """`v{counter}-{first 12 hex digits of the digest of the weights}`.

    >>> import numpy as np
    >>> version_id(3, {"w": np.zeros(2, np.float32)})
    'v3-5768890864c0'
    """
    return f"v{counter}-{digest(tensors)[:12]}"
