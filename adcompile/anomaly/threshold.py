"""From validation scores to a decision: threshold, score range, normalisation to 0…1.

The evidence (raw scores, labels, extremes of each map) is kept beside a fitted model, so that
threshold and normalisation can be changed later without touching an image again.

Normalisations, all 0.5 at the threshold ``t``:

| name | value at raw score x |
|---|---|
| ``min_max`` | clip((x - t) / (max - min) + 0.5, 0, 1) |
| ``sigma6``  | the same with t = mean + 3 std of good images and max = 2 t |
| ``cdf``     | normal CDF of (ln x - ln t) / std, std of ln x over good images |
| ``none``    | x itself, compared with t |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.metrics import Compare, best_f1, check_scores, decide
from adcompile.contract import Score
from adcompile.errors import InputError, UsageError

Floats = npt.NDArray[np.float64]
Mode = Literal["best_f1", "good_only", "manual"]
Normalisation = Literal["min_max", "cdf", "sigma6", "none"]
RangeOf = Literal["maps", "map_maxima", "scores", "maps_and_scores"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What thresholds are computed from; one entry per validation image.

    ``scores`` are raw image scores, ``map_low`` and ``map_high`` the extremes of each raw map.
    ``pixel_threshold`` is the best-F1 threshold of the pixels when masks were there.
    """

    scores: tuple[float, ...]
    labels: tuple[int, ...]
    map_low: tuple[float, ...]
    map_high: tuple[float, ...]
    pixel_threshold: float | None = None

    def good(self) -> Floats:
        """Raw scores of the normal images."""
        values, positive = check_scores(self.scores, self.labels)
        return values[~positive]


@dataclass(frozen=True, slots=True)
class ThresholdOptions:
    """How to decide; the reference systems' habits are presets in ``scoring``.

    ``range_of`` names what minimum and maximum are taken of: all map values (R0), the largest
    value of each map (R1), image scores, or maps and scores together (anomalib).
    """

    mode: Mode = "best_f1"
    value: float | None = None
    sigmas: float = 3.0
    normalisation: Normalisation = "min_max"
    range_of: RangeOf = "maps"
    decision: float = 0.5


def fit_score(score: Score, evidence: Evidence, options: ThresholdOptions) -> Score:
    """The score formula completed with threshold, range and normalisation from the evidence."""
    if not evidence.scores:
        raise InputError(
            "no validation image to take a threshold from",
            fix="give validation images, or a manual threshold",
        )
    check_decision(options.decision)
    threshold = _single(_threshold(evidence, options, score.compare))
    low, high = _range(evidence, options.range_of)
    pixel = evidence.pixel_threshold
    if options.normalisation == "sigma6":
        if options.mode != "good_only":
            raise UsageError(
                "sigma6 normalisation needs the good-only threshold",
                why="its maximum is twice the mean + 3 sigma of good images",
                fix="--threshold good_only",
            )
        high, pixel = 2.0 * threshold, threshold
    mean, std = _log_statistics(evidence) if options.normalisation == "cdf" else (None, None)
    done = score.model_copy(
        update={
            "normalisation": options.normalisation,
            "threshold": threshold,
            "pixel_threshold": _single(threshold if pixel is None else pixel),
            "minimum": _single(low),
            "maximum": _single(high),
            "mean": mean,
            "std": std,
            "decision": options.decision,
        }
    )
    check_score(done)
    return done


def check_decision(decision: float) -> None:
    """A decision level on the normalised scale must lie strictly between 0.01 and 0.99."""
    if not 0.01 < decision < 0.99:
        raise UsageError(
            "the normalised decision level must lie between 0.01 and 0.99",
            why=f"got {decision}: nearly every image would get the same answer",
        )


def check_score(score: Score, where: str = "score") -> None:
    """Refuse a score whose numbers cannot normalise: the reference C++ shows such images as OK."""
    if score.normalisation == "none":
        return
    if score.threshold is None:
        raise InputError(
            "a normalised score needs a threshold", where=f"{where}.threshold", why="it is empty"
        )
    if score.normalisation == "cdf":
        if score.std is None or not score.std > 0 or not score.threshold > 0:
            raise InputError(
                "cdf normalisation needs std > 0 and threshold > 0",
                where=f"{where}.std",
                why=f"std {score.std}, threshold {score.threshold}",
            )
        return
    if score.minimum is None or score.maximum is None or not score.maximum > score.minimum:
        raise InputError(
            "the maximum must be above the minimum",
            where=f"{where}.maximum",
            why=f"minimum {score.minimum}, maximum {score.maximum}: the scores hold no range",
            fix="check that the validation images are not all alike, or use normalisation none",
        )


def normalise(raw: npt.ArrayLike, score: Score, *, pixel: bool = False) -> npt.NDArray[np.float32]:
    """Raw scores or maps on the 0…1 scale (float32, same shape); NaN stays NaN.

    With ``pixel`` the pixel threshold is the middle of the scale when the score has one.
    """
    values = np.asarray(raw, dtype=np.float32)
    if score.normalisation == "none":
        return values
    check_score(score)
    middle = (
        score.threshold if not pixel or score.pixel_threshold is None else score.pixel_threshold
    )
    if score.normalisation == "cdf":
        return _cdf(values, middle or 0.0, score.std or 1.0)
    width = np.float32((score.maximum or 0.0) - (score.minimum or 0.0))
    scaled = (values - np.float32(middle or 0.0)) / width + np.float32(0.5)
    return np.asarray(np.clip(scaled, 0.0, 1.0), dtype=np.float32)


def is_anomalous(raw: npt.ArrayLike, score: Score) -> npt.NDArray[np.bool_]:
    """The decision of the contract for raw scores; NaN is anomalous."""
    if score.normalisation == "none":
        if score.threshold is None:
            raise InputError("the contract has no threshold", where="score.threshold")
        return decide(raw, score.threshold, score.compare)
    return decide(normalise(raw, score), score.decision, score.compare)


def raw_threshold(score: Score, *, pixel: bool = False) -> float:
    """The raw score at which the contract's decision flips."""
    middle = (
        score.threshold if not pixel or score.pixel_threshold is None else score.pixel_threshold
    )
    if middle is None:
        raise InputError("the contract has no threshold", where="score.threshold")
    if score.normalisation == "none" or score.decision == 0.5:
        return middle
    check_score(score)
    if score.normalisation == "cdf":
        return middle * math.exp((score.std or 1.0) * _normal_quantile(score.decision))
    return middle + (score.decision - 0.5) * ((score.maximum or 0.0) - (score.minimum or 0.0))


def _single(value: float) -> float:
    return float(np.float32(value))


def _threshold(evidence: Evidence, options: ThresholdOptions, compare: Compare) -> float:
    if options.mode == "manual":
        if options.value is None or not math.isfinite(options.value):
            raise UsageError(
                "a manual threshold needs a finite number", why=f"got {options.value}"
            )
        return options.value
    if options.mode == "best_f1":
        best = best_f1(evidence.scores, evidence.labels, compare).threshold
        if compare == ">=":
            return best
        low, high = _range(evidence, options.range_of)
        return _clear_of(best, evidence.scores, high - low)
    good = evidence.good()
    if good.size == 0:
        raise InputError(
            "the good-only threshold needs normal validation images",
            why=f"{len(evidence.scores)} images, all anomalous",
        )
    spread = float(np.std(good, ddof=1)) if good.size > 1 else 0.0
    return float(np.mean(good)) + options.sigmas * spread


def _clear_of(threshold: float, scores: Sequence[float], width: float) -> float:
    """A strict threshold moved down so that the score just above it still is after normalising.

    One float32 step on the raw scale can vanish on the normalised one (*width* is its range), and
    the image that set the threshold would pass as good. Moved by at most a ten-thousandth of the
    scores' spread or a millionth of the range, and never more than half way to the next lower
    score: the same images are flagged.
    """
    lower = max((score for score in scores if score <= threshold), default=-math.inf)
    step = max(1e-4 * (max(scores) - min(scores)), 1e-6 * width)
    return threshold - min((threshold - lower) / 2.0, step)


def _range(evidence: Evidence, range_of: RangeOf) -> tuple[float, float]:
    low = {
        "maps": evidence.map_low,
        "map_maxima": evidence.map_high,
        "scores": evidence.scores,
        "maps_and_scores": evidence.map_low + evidence.scores,
    }[range_of]
    high = {
        "maps": evidence.map_high,
        "map_maxima": evidence.map_high,
        "scores": evidence.scores,
        "maps_and_scores": evidence.map_high + evidence.scores,
    }[range_of]
    if not low or not high:
        raise InputError("the evidence has no map extremes", where=range_of)
    return min(low), max(high)


def _log_statistics(evidence: Evidence) -> tuple[float, float]:
    good = evidence.good()
    if good.size < 2 or not (good > 0).all():
        raise InputError(
            "cdf normalisation needs at least two normal images with positive scores",
            why=f"{good.size} normal images, smallest score {good.min() if good.size else 'none'}",
        )
    logs = np.log(good)
    return float(np.mean(logs)), float(np.std(logs, ddof=1))


_ERF = np.frompyfunc(math.erf, 1, 1)


def _cdf(values: npt.NDArray[np.float32], threshold: float, std: float) -> npt.NDArray[np.float32]:
    """Normal CDF of the log distance to the threshold; 0 at and below zero."""
    wide = values.astype(np.float64)
    positive = wide > 0
    logs = np.log(np.where(positive, wide, 1.0))
    z = (logs - math.log(threshold)) / std / math.sqrt(2.0)
    half = np.asarray(_ERF(z), dtype=np.float64)
    found = np.where(positive, 0.5 + 0.5 * half, 0.0)
    return np.where(np.isnan(wide), np.nan, found).astype(np.float32)


def _normal_quantile(probability: float) -> float:
    """Inverse normal CDF by bisection: 80 halvings of [-40, 40] are below double precision."""
    low, high = -40.0, 40.0
    for _ in range(80):
        middle = (low + high) / 2.0
        if 0.5 * (1.0 + math.erf(middle / math.sqrt(2.0))) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0
