"""Labels that come late: an example is trained before it is known, and corrected by weights when it is.

An impression waits for the short wait, then it is trained with what is known; a positive that comes later is put in
again, once. Untreated, the stream that is trained says p / (1 + p r) where the truth is p and a share r of the
positives is late. Three ways, by the setting `learn.delayed`; p below is the head's own present estimate, held fixed:

- `naive`: no weights. Biased low by 1 / (1 + p r), which matters where p is not small.
- `fake_negative_weighted` (Ktena et al., Addressing Delayed Feedback for Continuous Training with Neural Networks in
  CTR prediction, RecSys 2019): every example enters as a negative after the short wait, every positive once more as a
  positive. That stream has b(1) = p / (1 + p), b(0) = 1 / (1 + p), so a positive weighs p / b(1) = 1 + p and a
  negative (1 - p) / b(0) = (1 - p)(1 + p). Exact whatever the delays are.
- `real_negative` (Gu et al., Real Negatives Matter: Continuous Training with Real Negatives for Delayed Feedback
  Modeling, DEFER, KDD 2021): every example enters twice, after the short wait with what is known then and again when
  its label is final, a late positive as soon as it comes. Half of that stream has the late positives as negatives:
  b(1) = p - l/2, b(0) = 1 - p + l/2 with l = P(positive, late), so a positive weighs p / (p - l/2) and a negative
  (1 - p) / (1 - p + l/2). Here l = p r, with r = P(late | positive) from a head of its own that learns from positives
  of equal label age.

Clicks are waited for no longer than the short wait, so nothing corrects them. At the beginning of a stream every way
says too little, until the first purchases that can be late have come.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


class Delayed(StrEnum):
    """Which correction is in force."""

    NAIVE = "naive"
    FAKE_NEGATIVE_WEIGHTED = "fake_negative_weighted"
    REAL_NEGATIVE = "real_negative"


def weights(how: Delayed, label: npt.NDArray[np.bool_], p: Doubles, late: Doubles) -> Doubles:
    """Weight of each example, float64 [n]; see the module docstring.

    Args:
        how: the correction.
        label: as it enters, [n].
        p: the head's estimate that the example is positive, [n].
        late: estimate that it is late if it is positive, [n].

    >>> both, p, late = np.array([True, False]), np.full(2, 0.2), np.full(2, 0.5)
    >>> weights(Delayed.FAKE_NEGATIVE_WEIGHTED, both, p, late).round(4).tolist()
    [1.2, 0.96]
    >>> weights(Delayed.REAL_NEGATIVE, both, p, late).round(4).tolist()
    [1.3333, 0.9412]
    """
    if how is Delayed.FAKE_NEGATIVE_WEIGHTED:
        return np.asarray(np.where(label, 1.0 + p, (1.0 - p) * (1.0 + p)))
    if how is Delayed.REAL_NEGATIVE:
        return np.asarray(np.where(label, 1.0 / (1.0 - late / 2.0), (1.0 - p) / (1.0 - p + p * late / 2.0)))
    return np.ones(len(p))
