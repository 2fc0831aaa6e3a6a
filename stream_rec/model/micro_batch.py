"""A micro-batch of one task: what users looked like, what they were compared over and what they took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_rec.model.features import Inputs, Profiles


@dataclass(frozen=True, slots=True)
class Examples:
    """B users with T targets, ready to train on."""

    task: int
    inputs: Inputs
    rows: Profiles
    universe: npt.NDArray[np.int32]
    """Item rows that compete, rising, [U]."""
    user: npt.NDArray[np.int64]
    """User of each target, [T]."""
    column: npt.NDArray[np.int64]
    """Place of each target in the universe, [T]."""
    share: npt.NDArray[np.float32]
    """Weight of each target; a user's sum to one, [T]."""
    weight: npt.NDArray[np.float32]
    """Weight of each user's loss, [B]."""
