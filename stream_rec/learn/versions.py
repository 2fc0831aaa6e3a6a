"""The three parameter sets: the learner changes, a challenger is cut from it, the champion serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt

from stream_rec.component import Component, digest
from stream_rec.learn import evidence
from stream_rec.learn.comparison import Comparison
from stream_rec.learn.guard import Guard, GuardRules
from stream_rec.learn.head_metrics import Calibration
from stream_rec.learn.promotion import Rules, judge_light
from stream_rec.learn.soundness import faults, miscalibrated
from stream_rec.model.heads import HeadSets
from stream_rec.model.query_ranker import QueryLearner, QueryWeights
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
    scalars = (
        "n_examples", "n_since_cut", "n_cuts", "n_promotions", "n_rollbacks", "champion", "challenger", "previous",
        "n_steps", "turned_down", "held",
    )  # fmt: skip

    def __init__(self, champion: str) -> None:
        self.n_examples = self.n_since_cut = self.n_cuts = self.n_promotions = self.n_rollbacks = self.n_steps = 0
        self.champion = champion
        self.challenger = ""
        """Empty while none waits for its weights to be durable."""
        self.previous = ""
        """Champion before this one; empty when there is none to return to."""
        self.turned_down = False
        """Whether the last challenger that was cut may not serve."""
        self.held = ""
        """The last challenger that was cut, where the gate held it: people may promote it until the next cut."""


class QuerySets:
    """The parameter sets of what ranks for queries, and the champion before.

    Args:
        dim: width of a text embedding; 0 without an encoder.
    """

    def __init__(self, dim: int) -> None:
        self.learner = QueryLearner(dim)
        self.challenger, self.champion, self.previous = (QueryWeights(dim) for _ in range(3))

    def components(self) -> dict[str, Component]:
        """Everything that is state, by name."""
        return {f"query_{name}": part for name, part in vars(self).items()}


class Versions:
    """Cuts challengers from the learner, judges them, promotes them and returns to the champion before.

    Args:
        cut_examples: positives between two cuts.
        rate: step size of the learner.
        rules: of the gate; its rivals are set here.
        guard_rules: of the guard.
        tower: the text tower, whose parameter sets go with the ranker's; None: there is none.

    >>> versions = Versions(cut_examples=10)
    >>> versions.champion_version[:3]
    'v0-'
    """

    def __init__(
        self,
        cut_examples: int = 10_000,
        rate: float = 0.02,
        *,
        rules: Rules | None = None,
        guard_rules: GuardRules | None = None,
        tower: TwoTower | None = None,
    ) -> None:
        self.cut_examples, self.tower = cut_examples, tower
        self.learner = Learner(rate)
        self.heads = HeadSets()
        self.linear = Learner(rate) if tower is not None else None
        """`linear` learns without the tower, to be measured against."""
        self.challenger, self.champion, self.previous = Weights(), Weights(), Weights()
        self.query = QuerySets(tower.dim if tower is not None else 0)
        self.rules = replace(
            rules or Rules(),
            champions=(evidence.CHAMPION, evidence.YESTERDAY),
            baselines=evidence.baselines(with_tower=tower is not None),
        )
        self.comparison = Comparison((*self.rules.champions, *self.rules.baselines))
        self.guard = Guard(guard_rules)
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
        """Whether enough examples came since the last cut and no challenger is waiting.

        An adapter that has won is cut at once, unless the challenger it went with was turned down just now.
        """
        p = self.progress
        won = self.tower is not None and self.tower.ready and not p.turned_down
        return (p.n_since_cut >= self.cut_examples or won) and not p.challenger

    def cut(self, calibration: Mapping[str, Calibration] | None = None) -> Cut:
        """Freeze a copy of the learner as the challenger and judge it.

        Held or rejected for its quality, it is dropped: the learner goes on, is compared further and is judged again
        at the next cut. If its weights are not finite or its embeddings have collapsed, the learner returns to the
        champion and the comparison begins anew. Probabilities that are not calibrated are rejected, but what would
        mend them is more learning: the learner goes on.

        Args:
            calibration: of the learner's heads since the last cut, by head.
        """
        p = self.progress
        self.challenger.value = self.learner.value.copy()
        self.heads.cut()
        self.query.challenger.copy_from(self.query.learner)
        if self.tower is not None:
            self.tower.cut()
        tensors = self.tensors("challenger")
        sample = self.tower.sample() if self.tower is not None else None
        made, base = sample or (None, None)
        broken = faults(tensors, embeddings=made, base=base)
        record = judge_light(self.comparison, [*broken, *miscalibrated(calibration or {})], self.rules)
        version = version_id(p.n_promotions + 1, tensors)
        p.n_since_cut, p.n_cuts = 0, p.n_cuts + 1
        p.turned_down = record["verdict"] != "promote"
        p.held = version if record["verdict"] == "hold" else ""
        if not p.turned_down:
            p.challenger = version
        elif self.tower is not None:
            self.tower.withdraw()
        if broken:
            self._return()
        return Cut(version, tensors, {"version": version, "parent": p.champion, **record})

    def revive(self, version: str) -> Tensors | None:
        """Let the challenger that was held at the last cut wait for its weights to be durable.

        Returns:
            Its tensors; None when it is not that one, or its rows have been given to other items since.
        """
        p = self.progress
        if p.challenger or not version or version != p.held:
            return None
        for with_adapter in (True, False):
            if self.tower is not None and with_adapter:
                self.tower.send_adapter()
            tensors = self.tensors("challenger")
            if version_id(p.n_promotions + 1, tensors) == version:
                p.challenger, p.held = version, ""
                return tensors
            if self.tower is not None:
                self.tower.withdraw()
        return None

    def promote(self, version: str) -> bool:
        """Make the waiting challenger the champion; False when `version` is not the one that waits."""
        p = self.progress
        if not version or version != p.challenger:
            return False
        self.previous.value = self.champion.value.copy()
        self.champion.value = self.challenger.value.copy()
        self.heads.promote()
        self.query.previous.copy_from(self.query.champion)
        self.query.champion.copy_from(self.query.challenger)
        if self.tower is not None:
            self.tower.keep_previous()
            self.tower.promote()
        p.previous, p.champion, p.challenger = p.champion, version, ""
        p.n_promotions += 1
        self.comparison.restart(evidence.CHAMPION)
        self.guard.begin(p.champion, p.previous)
        return True

    def roll_back(self) -> bool:
        """Let the previous champion serve again and the learner go on from it; False when there is none.

        A challenger that waits is dropped.
        """
        p = self.progress
        if not p.previous:
            return False
        self.champion.value = self.previous.value.copy()
        self.heads.restore_previous()
        self.query.champion.copy_from(self.query.previous)
        if self.tower is not None:
            self.tower.restore_previous()
        p.champion, p.previous, p.challenger = p.previous, "", ""
        p.n_rollbacks += 1
        self.guard.stop()
        self._return()
        return True

    def go_on_from(self, version: str, before: Progress) -> None:
        """Serve again as of an earlier state that these sets were just restored to.

        Nobody watches a version that people chose, and versions keep counting upwards.

        Args:
            version: the challenger of that state, to serve; "" for the champion of that state.
            before: the progress until now.
        """
        p = self.progress
        if version and version == p.challenger:
            self.promote(version)
        p.challenger = p.held = ""
        if self.tower is not None:
            self.tower.withdraw()
            self.tower.renew()
        self.guard.end()
        p.n_promotions = max(p.n_promotions, before.n_promotions)
        p.n_cuts, p.n_rollbacks = before.n_cuts, before.n_rollbacks + 1

    def _return(self) -> None:
        """The learner starts again from the champion, and so does what is known about it."""
        self.progress.held = ""
        self.learner.reset(self.champion.value)
        self.heads.reset()
        self.query.learner.copy_from(self.query.champion)
        self.query.learner.restart()
        if self.tower is not None:
            self.tower.reset()
        self.comparison.restart()

    def tensors(self, which: str) -> Tensors:
        """What the weight file of a parameter set holds; `which` is `champion` or `challenger`."""
        weights: Weights = getattr(self, which)
        query: QueryWeights = getattr(self.query, which)
        tower = self.tower.tensors(which) if self.tower is not None else {}
        return {"ranker": weights.value.copy(), **query.tensors(), **self.heads.tensors(which), **tower}

    def components(self) -> dict[str, Component]:
        """State of this room by name."""
        return {
            **({"linear": self.linear} if self.linear is not None else {}),
            "learner": self.learner,
            "challenger": self.challenger,
            "champion": self.champion,
            "previous": self.previous,
            **self.heads.components(),
            **self.query.components(),
            "comparison": self.comparison,
            "guard": self.guard,
            "progress": self.progress,
        }


def version_id(counter: int, tensors: Tensors) -> str:
    """`v{counter}-{first 12 hex digits of the digest of the weights}`.

    >>> import numpy as np
    >>> version_id(3, {"w": np.zeros(2, np.float32)})
    'v3-5768890864c0'
    """
    return f"v{counter}-{digest(tensors)[:12]}"
