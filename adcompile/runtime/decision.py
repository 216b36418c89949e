"""From an anomaly score to a decision, as the contract says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from adcompile.contract import Score
from adcompile.runtime.executor import Array


def limit_of(score: Score) -> float | None:
    """The number that scores are compared with; None when the contract has no threshold."""
    return score.threshold if score.normalisation == "none" else score.decision


def decide(values: Array, score: Score) -> npt.NDArray[np.bool_]:
    """True where a score means "anomalous". NaN is anomalous: a broken input is never "normal".

    All False when the contract has no threshold (ask :func:`limit_of` first).
    """
    limit = limit_of(score)
    wide = np.asarray(values, dtype=np.float64)
    if limit is None:
        return np.zeros(wide.shape, dtype=bool)
    above = wide >= limit if score.compare == ">=" else wide > limit
    return above | np.isnan(wide)
