"""Comparison by role: what counts as equal, and that differences are reported, never raised."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adcompile.check.compare import compare, compare_tensor, worst
from adcompile.check.detections import box_iou
from adcompile.check.tolerance import Tolerance, Tolerances, default_tolerances
from adcompile.contract import Score

FLOAT = Tolerances.of({})
ROLES = {"b": "boxes", "l": "labels", "s": "scores", "m": "masks"}


def found(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 200, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 60, (count, 2))], axis=1)
    return {
        "b": boxes.astype(np.float32),
        "l": rng.integers(1, 9, count),
        "s": np.sort(rng.random(count).astype(np.float32))[::-1],
        "m": rng.random((count, 1, 6, 6)).astype(np.float32),
    }


def ok(reference: dict[str, np.ndarray], actual: dict[str, np.ndarray]) -> dict[str, bool]:
    return {c.name: c.ok for c in compare(reference, actual, ROLES, FLOAT)}


@given(count=st.integers(0, 30), seed=st.integers(0, 99))
def test_order_of_detections_does_not_matter(count: int, seed: int) -> None:
    """Any permutation of the rows is the same answer."""
    reference = found(count, seed)
    order = np.random.default_rng(seed).permutation(count)
    assert all(ok(reference, {n: a[order] for n, a in reference.items()}).values())


@pytest.mark.parametrize(
    ("name", "change", "failing"),
    [
        ("b", 2e-3, {"b"}),
        ("b", 5e-4, set[str]()),
        ("s", 2e-4, {"s"}),
        ("s", 5e-5, set[str]()),
        ("m", 2e-3, {"m"}),
        ("m", 5e-4, set[str]()),
    ],
)
def test_bounds_of_detections(name: str, change: float, failing: set[str]) -> None:
    """Boxes and masks 1e-3, scores 1e-4."""
    reference = found(7)
    actual = {n: a.copy() for n, a in reference.items()}
    actual[name][3] += np.float32(change)
    assert {n for n, good in ok(reference, actual).items() if not good} == failing


def test_a_changed_label_is_not_matched() -> None:
    """Labels must be equal: another class is another detection."""
    reference = found(5)
    actual = {n: a.copy() for n, a in reference.items()}
    actual["l"][2] += 1
    results = compare(reference, actual, ROLES, FLOAT)
    assert not any(c.ok for c in results)
    assert "1 of the reference not found, 1 not in the reference" in results[0].detail


@pytest.mark.parametrize(("left", "right"), [(5, 4), (4, 5), (0, 3), (3, 0)])
def test_other_counts_are_reported(left: int, right: int) -> None:
    """A different number of detections is an answer with both numbers, not an exception."""
    whole = found(5)
    results = compare(
        {n: a[:left] for n, a in whole.items()},
        {n: a[:right] for n, a in whole.items()},
        ROLES,
        FLOAT,
    )
    assert not any(c.ok for c in results)
    assert f"{right} detections, the reference has {left}" in results[0].detail
    assert results[0].metrics["matched"] == min(left, right) / max(left, right)


def test_overlapping_equal_boxes_pair_by_score() -> None:
    """Among nearly equal boxes of a class the score decides, so a swap is not an error."""
    box = np.array([[10, 10, 30, 30]] * 3, np.float32)
    box += np.array([[0], [1e-5], [2e-5]], np.float32)
    reference = {"b": box, "l": np.array([1, 1, 1]), "s": np.array([0.9, 0.8, 0.7], np.float32)}
    actual = {n: a[[1, 2, 0]] for n, a in reference.items()}
    roles = {n: ROLES[n] for n in reference}
    assert all(c.ok for c in compare(reference, actual, roles, FLOAT))


@pytest.mark.parametrize("precision", ["fp16", "a16w8", "a8w8", "xint8"])
def test_a_score_far_away_is_another_detection(precision: str) -> None:
    """Coarse precisions move scores a little. A network that gives 0 everywhere, or turns the scores
    round, has found nothing again; a single lost one is allowed."""
    bounds = Tolerances.of(default_tolerances([precision]))
    reference = {**found(12), "s": np.linspace(0.99, 0.9, 12, dtype=np.float32)}

    def fits(scores: np.ndarray) -> bool:
        results = compare(reference, {**reference, "s": scores.astype(np.float32)}, ROLES, bounds)
        return all(c.ok for c in results)

    assert fits(reference["s"] - 0.1)
    assert fits(np.where(np.arange(12) == 3, 0.05, reference["s"]))
    assert not fits(np.zeros(12))
    assert not fits(1 - reference["s"])


def test_batch_dimension_and_swapped_outputs() -> None:
    """A leading batch of one is dropped; boxes in place of scores are told apart."""
    reference = found(4)
    batched = {n: a[None] for n, a in reference.items()}
    assert all(ok(reference, batched).values())
    swapped = {**reference, "b": reference["s"], "s": reference["b"]}
    results = compare(reference, swapped, ROLES, FLOAT)
    assert not any(c.ok for c in results)
    assert "boxes have shape" in results[0].detail


def test_missing_output_is_reported() -> None:
    """An output that is not there fails; the others are still compared."""
    reference = {"x": np.ones(3, np.float32), "y": np.ones(3, np.float32)}
    results = {c.name: c for c in compare(reference, {"x": reference["x"]}, {}, FLOAT)}
    assert results["x"].ok
    assert not results["y"].ok
    assert results["y"].detail == "missing"


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("left", "right", "good"),
    [
        ([1.0, NAN], [1.0, NAN], True),
        ([1.0, NAN], [1.0, 2.0], False),
        ([1.0, 2.0], [1.0, NAN], False),
        ([INF, -INF], [INF, -INF], True),
        ([INF], [-INF], False),
        ([INF], [1e30], False),
        ([0.0], [-0.0], True),
        ([], [], True),
    ],
)
def test_nan_and_infinity(left: list[float], right: list[float], good: bool) -> None:
    """Not-a-number equals only itself, at the same place."""
    result = compare_tensor(
        "x",
        "tensor",
        np.array(left, np.float32),
        np.array(right, np.float32),
        Tolerance(1e-4, 1e-4),
    )
    assert result.ok is good


def test_shape_and_kind_must_agree() -> None:
    """A broadcastable shape or an integer in place of a float is a difference."""
    one = np.ones((2, 3), np.float32)
    for other in (np.ones((3, 2), np.float32), np.ones((1, 3), np.float32), one.astype(np.int64)):
        assert not compare_tensor("x", "tensor", one, other, Tolerance(1.0, 1.0)).ok


def test_large_tensors_are_bounded_by_their_peak() -> None:
    """A feature map with values near 1000 may differ by 0.05 anywhere; boxes may not."""
    reference = np.array([0.0, 1000.0], np.float32)
    actual = np.array([0.05, 1000.0], np.float32)
    assert compare_tensor("x", "features", reference, actual, Tolerance(0, 1e-4)).ok
    assert not compare_tensor("x", "boxes", reference, actual, Tolerance(0, 1e-4)).ok


def test_signal_to_noise() -> None:
    """20 dB is a tenth of the amplitude; equal arrays have the cap; silence against noise fails."""
    rng = np.random.default_rng(0)
    signal = rng.standard_normal(10_000).astype(np.float32)
    noisy = signal + 0.1 * rng.standard_normal(10_000).astype(np.float32)
    result = compare_tensor("x", "tensor", signal, noisy, Tolerance(snr_db=19))
    assert result.ok
    assert abs(result.metrics["snr_db"] - 20) < 0.3
    assert not compare_tensor("x", "tensor", signal, noisy, Tolerance(snr_db=21)).ok
    assert not compare_tensor("x", "tensor", 0 * signal, noisy, Tolerance(snr_db=1)).ok


@pytest.mark.parametrize(
    ("compare_by", "left", "right", "flips"),
    [(">=", 0.5, 0.49999, 1), (">", 0.5, 0.50001, 1), (">=", 0.5, 0.50001, 0)],
)
def test_decision_flips_fail(compare_by: str, left: float, right: float, flips: int) -> None:
    """Scores within tolerance on two sides of the threshold are two different answers."""
    score = Score.model_validate({"method": "patchcore", "threshold": 0.5, "compare": compare_by})
    (result,) = compare(
        {"s": np.array([left], np.float32)},
        {"s": np.array([right], np.float32)},
        {"s": "score"},
        FLOAT,
        score,
    )
    assert result.metrics["decision_flips"] == flips
    assert result.ok is (flips == 0)


def test_quantized_defaults_are_signal_to_noise() -> None:
    """The coarsest precision decides; the numbers are in the table that the manifest keeps."""
    table = default_tolerances(["fp32", "a16w8", "xint8"])
    tolerances = Tolerances.of(table)
    assert tolerances.part("xint8").snr_db == table["part:snr_db"][0]
    assert tolerances.part("fp32").snr_db is None
    assert tolerances.role("map").snr_db is not None
    assert tolerances.role("raw_score") == tolerances.role("score")
    assert tolerances.role("score").rtol > 0.1
    assert tolerances.role("heatmap of my own") == tolerances.role("tensor")
    assert default_tolerances(["fp32"]) == dict(FLOAT.table)


def test_boxes_without_area() -> None:
    """Degenerate boxes overlap only with themselves; nothing is divided by zero."""
    boxes = np.array([[5, 5, 5, 5], [1, 1, 3, 3]], np.float64)
    assert np.array_equal(box_iou(boxes, boxes), np.eye(2))


def test_worst_prefers_failures() -> None:
    """Of several samples the failed one is shown, then the noisiest."""
    good = compare_tensor("x", "t", np.ones(3), np.ones(3), Tolerance(0, 1))
    noisy = compare_tensor("x", "t", np.ones(3), np.ones(3) * 1.5, Tolerance(0, 1))
    bad = compare_tensor("x", "t", np.ones(3), np.ones(2), Tolerance(0, 1))
    assert worst([good, noisy]) is noisy
    assert worst([good, noisy, bad]) is bad
