"""The result of one image as the tables and the page need it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.maps import Array
from adcompile.anomaly.metrics import auroc, confusion
from adcompile.anomaly.samples import Sample
from adcompile.anomaly.threshold import is_anomalous, normalise, raw_threshold
from adcompile.contract import Score
from adcompile.runtime.decision import limit_of

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PixelRow:
    """Pixel metrics of one image at the pixel threshold; AUROC is NaN without both classes."""

    f1: float
    auroc: float
    recall: float
    accuracy: float
    precision: float


@dataclass(frozen=True, slots=True)
class Row:
    """One image: score on both scales, truth, decision, and TP, FP, TN or FN.

    ``label`` is -1 for an image nobody labelled. ``limit`` is what ``score`` was compared with: the
    decision level, or the raw threshold of a contract that does not normalise.
    """

    path: Path
    kind: str
    label: int
    raw: float
    score: float
    limit: float
    predicted: int
    pixel: PixelRow | None = None

    @property
    def outcome(self) -> str:
        """TP, FP, TN or FN; "-" without a label."""
        if self.label < 0:
            return "-"
        return ("T" if self.predicted == self.label else "F") + ("P" if self.predicted else "N")

    @property
    def wrong(self) -> bool:
        """True when the decision is not the label."""
        return 0 <= self.label != self.predicted

    @property
    def distance(self) -> float:
        """How far the score is from the limit, as a share of the scale (of the limit when raw)."""
        return abs(self.score - self.limit) / (max(1.0, abs(self.limit)))


def row_of(sample: Sample, raw: float, heat: Array, score: Score, truth: Mask | None) -> Row:
    """The row of a scored image. *heat* is the raw map, *truth* the mask at the map's size."""
    pixel = None
    if truth is not None and truth.shape == heat.shape:
        limit = raw_threshold(score, pixel=True)
        flat, labels = heat.ravel(), truth.ravel()
        counts = confusion(flat, labels, limit, score.compare)
        both = bool(truth.any()) and not bool(truth.all())
        pixel = PixelRow(
            f1=counts.f1,
            auroc=auroc(flat, labels) if both else float("nan"),
            recall=counts.recall,
            accuracy=counts.accuracy,
            precision=counts.precision,
        )
    return Row(
        path=sample.path,
        kind=sample.kind,
        label=sample.label,
        raw=raw,
        score=float(normalise([raw], score)[0]),
        limit=float(limit_of(score) or 0.0),
        predicted=int(is_anomalous([raw], score)[0]),
        pixel=pixel,
    )
