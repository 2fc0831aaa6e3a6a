"""A micro-batch of one task: what users looked like, what they were compared over and what they took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_rec.model.features import Inputs, Profiles


@dataclass(frozen=True, slots=True)
class Rivals:
    """Item rows that compete in a softmax: all there are, or a sample with known probabilities."""

    universe: npt.NDArray[np.int32]
    """Rising, [U]."""
    log_share: npt.NDArray[np.float32] | None = None
    """Logarithm of each row's chance to be in the sample, [U]; None: all are there."""

    def corrected(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits [B, U] of a softmax that is the whole catalogue's in expectation; overwrites them.

        logit - log Q (Bengio & Senecal 2008, Yi et al. 2019).
        """
        if self.log_share is not None:
            logits -= self.log_share
        return logits


@dataclass(frozen=True, slots=True)
class Examples:
    """B users with T targets, ready to train on."""

    task: int
    inputs: Inputs
    rows: Profiles
    rivals: Rivals
    """What the targets are compared with."""
    user: npt.NDArray[np.int64]
    """User of each target, [T]."""
    column: npt.NDArray[np.int64]
    """Place of each target in the universe, [T]."""
    share: npt.NDArray[np.float32]
    """Weight of each target; a user's sum to one, [T]."""
    weight: npt.NDArray[np.float32]
    """Weight of each user's loss, [B]."""
