"""Image and pixel metrics equal scikit-learn (and a brute-force AUPRO) on the same data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
)

from adcompile.anomaly import metrics, pixel_metrics
from adcompile.anomaly.metrics import Confusion
from adcompile.anomaly.pixel_metrics import PixelAccumulator
from adcompile.anomaly.regions import label_regions
from adcompile.errors import InputError

Maps = list[npt.NDArray[np.floating]]
Masks = list[npt.NDArray[np.bool_]]


def scores_and_labels(
    seed: int, levels: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    labels = random.random(random.integers(2, 60)) < 0.4
    labels[0], labels[-1] = False, True
    return np.round((random.random(labels.size) + labels) * levels) / levels, labels


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([3, 20, 10**6]))
def test_ranking_metrics_equal_scikit_learn(seed: int, levels: int) -> None:
    """AUROC, AP and the best F1 match to 1e-12 with and without ties; the lowest best wins."""
    scores, labels = scores_and_labels(seed, levels)
    assert metrics.auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    reference = average_precision_score(labels, scores)
    assert metrics.average_precision(scores, labels) == pytest.approx(reference, abs=1e-12)
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    best = metrics.best_f1(scores, labels)
    assert best.f1 == pytest.approx(f1.max(), abs=1e-12)
    assert best.threshold == thresholds[np.flatnonzero(f1[:-1] > f1.max() - 1e-12)[0]]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_strict_threshold_flags_the_same_images(seed: int) -> None:
    """The best-F1 threshold for ">" decides exactly what the one for ">=" decides."""
    scores, labels = scores_and_labels(seed, 5)
    single = scores.astype(np.float32)
    loose = metrics.best_f1(single, labels, ">=")
    strict = metrics.best_f1(single, labels, ">")
    flagged = metrics.decide(single, loose.threshold, ">=")
    assert (flagged == metrics.decide(single, strict.threshold, ">")).all()


def test_confusion_counts_and_ratios() -> None:
    """Counts at a threshold, with the comparison operator respected at equality."""
    scores, labels = [0.1, 0.5, 0.5, 0.9], [0, 0, 1, 1]
    assert metrics.confusion(scores, labels, 0.5, ">=") == Confusion(tp=2, fp=1, tn=1, fn=0)
    assert metrics.confusion(scores, labels, 0.5, ">") == Confusion(tp=1, fp=0, tn=2, fn=1)
    assert Confusion(tp=2, fp=1, tn=1, fn=0).f1 == pytest.approx(0.8)
    assert Confusion(tp=0, fp=0, tn=3, fn=0).precision == 0.0


def test_one_class_gives_nan_or_a_clear_error() -> None:
    """AUROC of one class is NaN; the best-F1 threshold without anomalous images is refused."""
    assert np.isnan(metrics.auroc([1.0, 2.0], [0, 0]))
    with pytest.raises(InputError, match="anomalous samples"):
        metrics.best_f1([1.0, 2.0], [0, 0])
    row = metrics.image_metrics([1.0, 2.0], [0, 0], 1.5)
    assert (row.images, row.anomalous) == (2, 0)
    assert row.accuracy == 0.5
    assert np.isnan(row.best_f1)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0], [0, 1], "differ in number"),
        ([1.0, float("nan")], [0, 1], "not a finite"),
        ([1.0, 2.0], [0, 2], "labels must be"),
    ],
)
def test_bad_scores_are_refused(scores: list[float], labels: list[int], message: str) -> None:
    """Length mismatch, NaN and strange labels never reach a metric."""
    with pytest.raises(InputError, match=message):
        metrics.auroc(scores, labels)


def test_nan_scores_are_flagged_never_good() -> None:
    """A NaN score decides "anomalous" under both comparisons."""
    assert metrics.decide([np.nan, 0.0], 1.0, ">=").tolist() == [True, False]
    assert metrics.decide([np.nan, 0.0], 1.0, ">").tolist() == [True, False]


def test_average_leaves_nan_out() -> None:
    """The mean over categories skips categories where a metric is undefined."""
    rows = {
        "a": metrics.image_metrics([0.0, 1.0], [0, 1], 0.5),
        "b": metrics.image_metrics([0.0, 0.2], [0, 0], 0.5),
    }
    mean = metrics.average(rows)
    assert mean["auroc"] == 1.0
    assert mean["accuracy"] == 1.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.8))
def test_regions_equal_scipy(seed: int, density: float) -> None:
    """8-connected labels, numbered in reading order, equal scipy.ndimage.label."""
    random = np.random.default_rng(seed)
    mask = random.random(random.integers(1, 25, 2)) < density
    ours, count = label_regions(mask)
    reference, number = label(mask, np.ones((3, 3)))
    assert count == number
    assert (ours == reference).all()


def random_maps(seed: int, dtype: type[np.floating], levels: int) -> tuple[Maps, Masks]:
    random = np.random.default_rng(seed)
    height, width = random.integers(3, 20, 2)
    masks = [random.random((height, width)) < p for p in (0.0, 0.1, 0.5)]
    masks[1][1, 1] = True
    maps = [
        (np.round((random.random(m.shape) + m) * levels) / levels).astype(dtype) for m in masks
    ]
    return maps, masks


def brute_aupro(maps: Maps, masks: Masks, limit: float) -> float:
    """Mean region overlap at every distinct score, integrated on a fine grid of points."""
    background = np.concatenate([m[~k] for m, k in zip(maps, masks, strict=True)])
    regions: Maps = []
    for scores, mask in zip(maps, masks, strict=True):
        labels, count = label(mask, np.ones((3, 3)))
        regions += [scores[labels == number] for number in range(1, count + 1)]
    x, y = [0.0], [0.0]
    for threshold in np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]:
        x.append(float((background >= threshold).mean()))
        y.append(float(np.mean([(region >= threshold).mean() for region in regions])))
    inside = [value for value in x if value < limit]
    grid = np.unique(np.append(inside, limit))
    # A vertical step has two heights at one x: integrate piece by piece.
    area = 0.0
    for left, right, low, high in zip(x, x[1:], y, y[1:], strict=False):
        stop = min(right, limit)
        if stop > left:
            end = low + (high - low) * (stop - left) / (right - left)
            area += (stop - left) * (low + end) / 2
    assert grid.size > 0
    return area / limit


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([4, 10**6]),
    st.booleans(),
)
def test_pixel_metrics_equal_references(
    seed: int, dtype: type[np.floating], levels: int, tight: bool
) -> None:
    """Streaming results equal scikit-learn and brute-force AUPRO, also when spilled and sliced."""
    maps, masks = random_maps(seed, dtype, levels)
    whole = pixel_metrics.SLICE
    pixel_metrics.SLICE = 3 if tight else whole
    try:
        stream = PixelAccumulator(memory=100 if tight else 1 << 20)
        for scores, mask in zip(maps, masks, strict=True):
            stream.add(scores, mask)
        result = stream.result()
    finally:
        pixel_metrics.SLICE = whole
    scores = np.concatenate([m.ravel() for m in maps])
    labels = np.concatenate([m.ravel() for m in masks])
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert result.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    reference = average_precision_score(labels, scores)
    assert result.average_precision == pytest.approx(reference, abs=1e-12)
    assert result.best_f1 == pytest.approx(f1.max(), abs=1e-12)
    flagged = metrics.confusion(scores, labels, result.best_threshold)
    assert flagged.f1 == pytest.approx(result.best_f1, abs=1e-12)
    assert result.aupro == pytest.approx(brute_aupro(maps, masks, 0.3), abs=1e-12)


def test_pixel_metrics_without_defects_are_nan() -> None:
    """Maps of good images only: counts are right and no metric is invented."""
    stream = PixelAccumulator()
    stream.add(np.zeros((4, 5), dtype=np.float32), None)
    result = stream.result()
    assert (result.maps, result.pixels, result.regions) == (1, 20, 0)
    assert np.isnan(result.auroc)
    assert np.isnan(result.aupro)


def test_pixel_input_is_checked() -> None:
    """Different shapes, NaN maps and a second result() are refused."""
    stream = PixelAccumulator()
    with pytest.raises(InputError, match="differ in shape"):
        stream.add(np.zeros((4, 5)), np.ones((5, 4)))
    with pytest.raises(InputError, match="not finite"):
        stream.add(np.full((4, 5), np.nan), None)
    with pytest.raises(InputError, match="fpr_limit"):
        PixelAccumulator(fpr_limit=0.0)
    stream.result()
    with pytest.raises(InputError, match="already taken"):
        stream.result()
