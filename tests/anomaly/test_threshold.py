"""Thresholds, score ranges and the three normalisations follow their stated formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adcompile.anomaly.threshold import (
    Evidence,
    ThresholdOptions,
    fit_score,
    is_anomalous,
    normalise,
    raw_threshold,
)
from adcompile.contract import Score
from adcompile.errors import InputError, UsageError

EVIDENCE = Evidence(
    scores=(1.0, 2.0, 1.5, 4.0, 5.0),
    labels=(0, 0, 0, 1, 1),
    map_low=(0.5, 0.25, 0.5, 0.5, 0.5),
    map_high=(1.25, 2.25, 1.75, 4.5, 6.0),
)
BASE = Score(method="patchcore")


def test_best_f1_and_ranges() -> None:
    """The threshold separates the classes; min and max come from what range_of names."""
    done = fit_score(BASE, EVIDENCE, ThresholdOptions())
    assert (done.threshold, done.minimum, done.maximum) == (4.0, 0.25, 6.0)
    done = fit_score(BASE, EVIDENCE, ThresholdOptions(range_of="map_maxima"))
    assert (done.minimum, done.maximum) == (1.25, 6.0)
    done = fit_score(BASE, EVIDENCE, ThresholdOptions(range_of="scores"))
    assert (done.minimum, done.maximum) == (1.0, 5.0)


def test_good_only_is_mean_plus_three_sigma_and_sigma6_doubles_it() -> None:
    """Good-only threshold uses good images only; sigma6 sets the maximum to twice it."""
    options = ThresholdOptions(mode="good_only", normalisation="sigma6")
    done = fit_score(BASE, EVIDENCE, options)
    expected = np.float32(1.5 + 3 * 0.5)
    assert done.threshold == expected
    assert done.pixel_threshold == expected
    assert done.maximum == 2 * expected
    assert done.minimum == 0.25
    with pytest.raises(UsageError, match="good-only"):
        fit_score(BASE, EVIDENCE, ThresholdOptions(normalisation="sigma6"))


def test_min_max_formula_and_clip() -> None:
    """(x - t) / (max - min) + 0.5, clipped; 0.5 exactly at the threshold."""
    done = fit_score(BASE, EVIDENCE, ThresholdOptions())
    values = normalise([4.0, 5.0, 100.0, -100.0], done)
    assert values[0] == 0.5
    assert values[1] == pytest.approx(1.0 / 5.75 + 0.5, rel=1e-6)
    assert values[2:].tolist() == [1.0, 0.0]
    assert is_anomalous([3.999, 4.0], done).tolist() == [False, True]


def test_cdf_formula() -> None:
    """Normal CDF of the log distance to the threshold over the spread of good logs."""
    done = fit_score(BASE, EVIDENCE, ThresholdOptions(normalisation="cdf"))
    logs = np.log([1.0, 2.0, 1.5])
    std = float(np.std(logs, ddof=1))
    z = (math.log(5.0) - math.log(4.0)) / std
    expected = 0.5 * (1 + math.erf(z / math.sqrt(2)))
    values = normalise([4.0, 5.0, 0.0], done)
    assert values.tolist() == pytest.approx([0.5, expected, 0.0], abs=1e-6)


def test_changing_the_level_needs_no_refit() -> None:
    """Another mode, normalisation or level is computed from the same evidence."""
    first = fit_score(BASE, EVIDENCE, ThresholdOptions())
    again = fit_score(first, EVIDENCE, ThresholdOptions(mode="manual", value=2.5))
    assert again.threshold == 2.5
    assert fit_score(again, EVIDENCE, ThresholdOptions()) == first


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 0.95), st.sampled_from(["min_max", "cdf"]), st.floats(0.3, 7.0))
def test_raw_threshold_is_where_the_decision_flips(
    level: float, normalisation: str, raw: float
) -> None:
    """Deciding on the raw scale at raw_threshold equals deciding on the normalised scale."""
    options = ThresholdOptions(normalisation=normalisation, decision=level)  # type: ignore[arg-type]
    done = fit_score(BASE, EVIDENCE, options)
    flip = raw_threshold(done)
    if abs(raw - flip) > 1e-3:
        assert bool(is_anomalous(raw, done)) == (raw > flip)


def test_nan_is_anomalous_and_stays_visible() -> None:
    """A NaN score normalises to NaN and is decided anomalous, never OK."""
    done = fit_score(BASE, EVIDENCE, ThresholdOptions())
    assert np.isnan(normalise(np.nan, done))
    assert bool(is_anomalous(np.nan, done))


@pytest.mark.parametrize(
    ("evidence", "options", "message"),
    [
        (Evidence((), (), (), ()), ThresholdOptions(), "no validation image"),
        (Evidence((1.0,), (0,), (1.0,), (2.0,)), ThresholdOptions(), "anomalous samples"),
        (
            Evidence((1.0, 1.0), (0, 1), (1.0, 1.0), (1.0, 1.0)),
            ThresholdOptions(),
            "maximum must be above",
        ),
        (EVIDENCE, ThresholdOptions(mode="manual"), "finite number"),
        (EVIDENCE, ThresholdOptions(decision=1.0), "between 0.01 and 0.99"),
        (
            Evidence((3.0,), (1,), (1.0,), (2.0,)),
            ThresholdOptions(mode="good_only"),
            "normal validation images",
        ),
    ],
)
def test_impossible_thresholds_are_refused(
    evidence: Evidence, options: ThresholdOptions, message: str
) -> None:
    """No images, one class, no range, no number, useless level: refused with the reason."""
    with pytest.raises(InputError, match=message):
        fit_score(BASE, evidence, options)


@pytest.mark.parametrize("compare", [">", ">="])
def test_the_image_that_sets_the_threshold_is_flagged(compare: str) -> None:
    """Decided on the normalised scale, with maps a million times wider than the scores' gaps."""
    raw = np.float32(300.0) + np.arange(8, dtype=np.float32) * np.float32(4e-5)
    evidence = Evidence(tuple(map(float, raw)), (0,) * 5 + (1,) * 3, (0.0,) * 8, (1e3,) * 8)
    plain = Score(method="padim", k=1, compare=compare)  # type: ignore[arg-type]
    wide = Evidence((1.0, 2.0, 5.0, 9.0), (0, 0, 1, 1), (0.0,) * 4, (1e5,) * 4)
    score = fit_score(plain, wide, ThresholdOptions())
    assert is_anomalous(wide.scores, score).tolist() == [False, False, True, True]
    assert 4.8 < raw_threshold(score) <= 5.0
    with_gap = fit_score(plain, evidence, ThresholdOptions(normalisation="none"))
    assert is_anomalous(raw, with_gap).tolist() == [False] * 5 + [True] * 3
