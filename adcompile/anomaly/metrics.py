"""Exact ranking metrics of anomaly scores: AUROC, average precision, best F1, confusion.

Everything here works on one-dimensional scores that fit in memory (one per image). Per-pixel
metrics over many maps are in :mod:`adcompile.anomaly.pixel_metrics`, which streams.

Scores are "larger is more anomalous", labels are 0 (normal) or 1 (anomalous). A metric that
does not exist for the data (AUROC with one class only) is NaN, never a made-up number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from adcompile.errors import InputError

Floats = npt.NDArray[np.float64]
Compare = Literal[">", ">="]


@dataclass(frozen=True, slots=True)
class Curve:
    """Counts at every distinct score, from the highest down, deciding ``score >= threshold``.

    ``thresholds``, ``true_positives`` and ``false_positives`` have the same length; the two
    totals are the class sizes.
    """

    thresholds: Floats
    true_positives: Floats
    false_positives: Floats
    positives: int
    negatives: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """The four counts of a decision and what follows from them. Undefined ratios are 0."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def accuracy(self) -> float:
        """Share of right decisions."""
        return _ratio(self.tp + self.tn, self.tp + self.fp + self.tn + self.fn)


@dataclass(frozen=True, slots=True)
class BestF1:
    """The highest F1 any threshold reaches, and the threshold that reaches it."""

    threshold: float
    f1: float
    precision: float
    recall: float


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def check_scores(
    scores: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Both as flat arrays; refuses different lengths, NaN or infinite scores, labels not 0/1."""
    values = np.asarray(scores, dtype=np.float64).ravel()
    classes = np.asarray(labels).ravel()
    if values.size != classes.size:
        raise InputError(
            "scores and labels differ in number",
            why=f"{values.size} scores, {classes.size} labels",
        )
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        raise InputError("a score is not a finite number", where=f"score {first}: {values[first]}")
    if classes.dtype != np.bool_ and not np.isin(classes, (0, 1)).all():
        raise InputError("labels must be 0 (normal) or 1 (anomalous)")
    return values, classes.astype(np.bool_)


def ranking_curve(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Curve:
    """Cumulative counts at each distinct score, highest first."""
    values, positive = check_scores(scores, labels)
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    hits = np.cumsum(positive[order], dtype=np.int64)
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, np.bool_(values.size > 0)))
    tp = hits[last].astype(np.float64)
    total = int(hits[-1]) if hits.size else 0
    return Curve(ordered[last], tp, last + 1.0 - tp, total, int(values.size) - total)


def auroc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Area under the ROC curve, ties counted half; NaN when only one class is present."""
    curve = ranking_curve(scores, labels)
    if not curve.positives or not curve.negatives:
        return float("nan")
    tp = np.append(0.0, curve.true_positives)
    fp = np.append(0.0, curve.false_positives)
    area = float(np.sum(np.diff(fp) * (tp[1:] + tp[:-1])) / 2.0)
    return area / curve.positives / curve.negatives


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Sum of precision times recall step (scikit-learn's definition); NaN without positives."""
    curve = ranking_curve(scores, labels)
    if not curve.positives:
        return float("nan")
    precision = curve.true_positives / (curve.true_positives + curve.false_positives)
    steps = np.diff(np.append(0.0, curve.true_positives))
    return float(np.sum(steps * precision) / curve.positives)


def roc_points(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Floats]:
    """False and true positive rates, from (0, 0) to (1, 1); both classes must be present."""
    curve = ranking_curve(scores, labels)
    if not curve.positives or not curve.negatives:
        raise InputError(
            "a ROC curve needs both classes",
            why=f"{curve.negatives} normal, {curve.positives} anomalous",
        )
    return (
        np.append(0.0, curve.false_positives / curve.negatives),
        np.append(0.0, curve.true_positives / curve.positives),
    )


def best_f1(scores: npt.ArrayLike, labels: npt.ArrayLike, compare: Compare = ">=") -> BestF1:
    """The threshold with the highest F1; the lowest one when several tie.

    The threshold is one of the scores, as in the reference systems (they decide ``>=``). For a
    strict ``>`` it is moved down to the next float32, so the same images are flagged.
    """
    curve = ranking_curve(scores, labels)
    if not curve.positives:
        raise InputError(
            "best-F1 threshold needs anomalous samples",
            why=f"{curve.negatives} normal samples and no anomalous one",
            fix="use the good-only threshold (mean + 3 sigma), or set one by hand",
        )
    tp, fp = curve.true_positives, curve.false_positives
    f1 = 2.0 * tp / (tp + fp + curve.positives)
    at = int(f1.size - 1 - np.argmax(f1[::-1]))
    threshold = float(curve.thresholds[at])
    return BestF1(
        threshold=threshold if compare == ">=" else below(threshold),
        f1=float(f1[at]),
        precision=float(tp[at] / (tp[at] + fp[at])),
        recall=float(tp[at] / curve.positives),
    )


def below(threshold: float) -> float:
    """A number strictly under *threshold* that float32 tells apart: ``> it`` equals ``>=``."""
    single = np.float32(threshold)
    if float(single) < threshold:
        return float(single)
    return float(np.nextafter(single, np.float32(-np.inf)))


def decide(
    scores: npt.ArrayLike, threshold: float, compare: Compare = ">="
) -> npt.NDArray[np.bool_]:
    """True where a score is anomalous. NaN scores count as anomalous: never silently "good"."""
    values = np.asarray(scores, dtype=np.float64)
    hit = values >= threshold if compare == ">=" else values > threshold
    return np.asarray(hit | np.isnan(values), dtype=np.bool_)


def confusion(
    scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float, compare: Compare = ">="
) -> Confusion:
    """Counts of right and wrong decisions at one threshold."""
    values, positive = check_scores(scores, labels)
    flagged = decide(values, threshold, compare)
    return Confusion(
        tp=int(np.sum(flagged & positive)),
        fp=int(np.sum(flagged & ~positive)),
        tn=int(np.sum(~flagged & ~positive)),
        fn=int(np.sum(~flagged & positive)),
    )


@dataclass(frozen=True, slots=True)
class ImageMetrics:
    """All image-level numbers of one data set at one threshold."""

    images: int
    anomalous: int
    auroc: float
    average_precision: float
    threshold: float
    f1: float
    precision: float
    recall: float
    accuracy: float
    best_f1: float
    best_threshold: float


def image_metrics(
    scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float, compare: Compare = ">="
) -> ImageMetrics:
    """Image metrics at *threshold*; ranking metrics are NaN where a class is missing."""
    values, positive = check_scores(scores, labels)
    counts = confusion(values, positive, threshold, compare)
    best = best_f1(values, positive, compare) if positive.any() else None
    return ImageMetrics(
        images=int(values.size),
        anomalous=int(positive.sum()),
        auroc=auroc(values, positive),
        average_precision=average_precision(values, positive),
        threshold=threshold,
        f1=counts.f1,
        precision=counts.precision,
        recall=counts.recall,
        accuracy=counts.accuracy,
        best_f1=best.f1 if best else float("nan"),
        best_threshold=best.threshold if best else float("nan"),
    )


def average(rows: Mapping[str, ImageMetrics]) -> dict[str, float]:
    """Plain mean over categories of each numeric field; NaN entries are left out of the mean."""
    if not rows:
        raise InputError("no category to average over")
    tables = [asdict(row) for row in rows.values()]
    names = [name for name in tables[0] if name not in {"images", "anomalous"}]
    return {name: _mean([float(table[name]) for table in tables]) for name in names}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
