"""Compare results with a reference, by role. A difference is reported, never raised.

Boxes, labels, scores and masks are compared together as detections (``check.detections``); an
anomaly score also by the decision it leads to; everything else value by value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from adcompile.check import detections
from adcompile.check.tolerance import ABSOLUTE_ROLES, Tolerance, Tolerances
from adcompile.contract import Score
from adcompile.outputs import CLASS_MAP
from adcompile.runtime.decision import decide
from adcompile.runtime.executor import Array

SNR_CAP = 300.0  # of equal arrays, instead of infinity


SAME_CLASSES = 0.999  # share of pixels whose class must be the same in float
SAME_CLASSES_COARSE = 0.5  # in coarser precisions; as loose as their bounds of signal to noise


@dataclass(frozen=True, slots=True)
class Comparison:
    """One output against its reference. ``metrics`` are the measured numbers, ``detail`` words."""

    name: str
    role: str
    ok: bool
    tolerance: str
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    detail: str = ""

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        return {
            "name": self.name,
            "role": self.role,
            "ok": self.ok,
            "tolerance": self.tolerance,
            "metrics": dict(self.metrics),
            "detail": self.detail,
        }


def compare(
    reference: Mapping[str, Array],
    actual: Mapping[str, Array],
    roles: Mapping[str, str],
    tolerances: Tolerances,
    score: Score | None = None,
) -> list[Comparison]:
    """Compare every array of *reference*, in its order. An output without a role is a "tensor".

    Sequences (lists) are compared item by item, as ``NAME[0]``, ``NAME[1]`` …
    """
    if not _all_tensors(reference):
        return _compare_values(reference, actual, roles, tolerances, score)
    missing = [name for name in reference if name not in actual]
    found = {
        name: Comparison(name, roles.get(name, "tensor"), False, "present", detail="missing")
        for name in missing
    }
    group = detections.group_of({n: roles.get(n, "tensor") for n in reference})
    if group and not any(name in found for name in group.values()):
        found.update(_compare_group(group, reference, actual, tolerances))
    for name, array in reference.items():
        if name in found:
            continue
        role = roles.get(name, "tensor")
        bound = tolerances.role(role)
        numbers = role == CLASS_MAP and array.dtype.kind in "iu"
        how = _compare_classes if numbers else compare_tensor
        result = how(name, role, array, actual[name], bound)
        if role == "score" and score is not None:
            result = _with_decisions(result, array, actual[name], score)
        found[name] = result
    return [found[name] for name in reference]


def _all_tensors(values: Mapping[str, object]) -> bool:
    """False when sequences or absent optionals are among them (they travel as arrays)."""
    return all(isinstance(value, np.ndarray) for value in values.values())


def _compare_values(
    reference: Mapping[str, object],
    actual: Mapping[str, object],
    roles: Mapping[str, str],
    tolerances: Tolerances,
    score: Score | None,
) -> list[Comparison]:
    """The same with sequences and absent optionals among the values."""
    flat: dict[str, Array] = {}
    found: list[Comparison] = []
    given: dict[str, Array] = {}
    for name, value in reference.items():
        other = actual.get(name)
        if isinstance(value, np.ndarray):
            flat[name] = cast(Array, value)
            if name in actual:
                given[name] = cast(Array, other)
            continue
        words = [_count_of(value), _count_of(other)]
        same = words[0] == words[1]
        detail = "" if same else f"{words[1]}, the reference is {words[0]}"
        found.append(Comparison(name, roles.get(name, "tensor"), same, "equal", {}, detail))
        if same and isinstance(value, list):
            pairs = zip(cast("list[Array]", value), cast("list[Array]", other), strict=True)
            for index, (mine, theirs) in enumerate(pairs):
                flat[f"{name}[{index}]"], given[f"{name}[{index}]"] = mine, theirs
    return [*found, *compare(flat, given, roles, tolerances, score)]


def _count_of(value: object) -> str:
    if value is None:
        return "absent"
    if isinstance(value, list):
        return f"a sequence of {len(cast('list[object]', value))}"
    return "a tensor"


def compare_tensor(
    name: str, role: str, reference: Array, actual: Array, tolerance: Tolerance
) -> Comparison:
    """Value by value. NaN equals NaN, infinities equal themselves; shapes and kinds must agree."""
    problem = _mismatch(reference, actual)
    if problem:
        return Comparison(name, role, False, str(tolerance), {}, problem)
    if reference.size == 0:
        return Comparison(name, role, True, str(tolerance), {"max_abs": 0.0}, "empty")
    if reference.dtype.kind not in "fiub":
        same = bool(np.array_equal(reference, actual))
        return Comparison(name, role, same, "equal", {}, "" if same else "values differ")
    expected, got = _wide(reference), _wide(actual)
    strange = ~np.isfinite(expected) | ~np.isfinite(got)
    same_strange = (expected == got) | (np.isnan(expected) & np.isnan(got))
    broken = int(np.count_nonzero(strange & ~same_strange))
    expected, got = np.where(strange, 0.0, expected), np.where(strange, 0.0, got)
    difference = np.abs(got - expected)
    metrics = {
        "max_abs": float(difference.max()),
        "mean_abs": float(difference.mean()),
        "snr_db": snr_db(expected, difference),
    }
    outside = _outside(expected, difference, tolerance, role)
    if tolerance.snr_db is not None:
        ok = metrics["snr_db"] >= tolerance.snr_db
    else:
        ok = outside == 0
        metrics["outside"] = outside / reference.size
    if broken:
        metrics["not_finite"] = float(broken)
    detail = f"{broken} values are NaN or infinite on one side only" if broken else ""
    return Comparison(name, role, ok and not broken, str(tolerance), metrics, detail)


def snr_db(reference: npt.NDArray[np.float64], difference: npt.NDArray[np.float64]) -> float:
    """Signal-to-noise ratio in dB, between -300 and 300."""
    noise = float(np.square(difference).sum())
    signal = float(np.square(reference).sum())
    if noise == 0.0:
        return SNR_CAP
    if signal == 0.0:
        return -SNR_CAP
    return max(-SNR_CAP, min(SNR_CAP, 10.0 * math.log10(signal / noise)))


def _compare_classes(
    name: str, role: str, reference: Array, actual: Array, tolerance: Tolerance
) -> Comparison:
    """Whole numbers that stand for classes: by the share of equal ones, not by how far they differ."""
    least = SAME_CLASSES if tolerance.snr_db is None else SAME_CLASSES_COARSE
    words = f"{least:.1%} of the pixels"
    problem = _mismatch(reference, actual)
    if problem:
        return Comparison(name, role, False, words, {}, problem)
    equal = int(np.count_nonzero(_wide(reference) == _wide(actual)))
    same = equal / reference.size if reference.size else 1.0
    return Comparison(name, role, same >= least, words, {"same_pixels": same})


def _outside(
    expected: npt.NDArray[np.float64],
    difference: npt.NDArray[np.float64],
    tolerance: Tolerance,
    role: str,
) -> int:
    peak = 1.0 if role in ABSOLUTE_ROLES else max(1.0, float(np.abs(expected).max()))
    bound = tolerance.atol * peak + tolerance.rtol * np.abs(expected)
    return int(np.count_nonzero(difference > bound))


def _mismatch(reference: Array, actual: Array) -> str:
    if reference.shape != actual.shape:
        return f"shape {list(actual.shape)}, the reference has {list(reference.shape)}"
    if (reference.dtype.kind == "f") != (actual.dtype.kind == "f"):
        return f"{actual.dtype}, the reference has {reference.dtype}"
    return ""


def _wide(array: Array) -> npt.NDArray[np.float64]:
    return np.asarray(array, dtype=np.float64)


def _compare_group(
    group: Mapping[str, str],
    reference: Mapping[str, Array],
    actual: Mapping[str, Array],
    tolerances: Tolerances,
) -> dict[str, Comparison]:
    """Every output of the group, after its rows were matched."""
    fraction, iou = tolerances.matched
    expected = detections.rows_of(group, reference)
    got = detections.rows_of(group, actual)
    problem = expected.problem or got.problem
    if problem:
        return {
            name: Comparison(name, role, False, "detections", {}, problem)
            for role, name in group.items()
        }
    match = detections.match(expected, got, iou, tolerances.score_apart)
    counts = match.summary(fraction)
    bound = f"{fraction:.0%} matched at IoU {iou:g}"
    if math.isfinite(tolerances.score_apart):
        bound += f", scores to {tolerances.score_apart:g}"
    found: dict[str, Comparison] = {}
    for role, name in group.items():
        rows = compare_tensor(
            name,
            role,
            expected.take(role, match.left),
            got.take(role, match.right),
            tolerances.role(role),
        )
        metrics = {**rows.metrics, **counts.metrics}
        detail = "; ".join(text for text in (counts.text, rows.detail) if text and text != "empty")
        # below 100 % the differences of matched rows are only reported, see default_tolerances
        text = bound if fraction < 1.0 else f"{bound}, {rows.tolerance}"
        ok = rows.ok and counts.ok
        found[name] = replace(rows, ok=ok, tolerance=text, metrics=metrics, detail=detail)
    return found


def _with_decisions(
    result: Comparison, reference: Array, actual: Array, score: Score
) -> Comparison:
    if reference.shape != actual.shape:
        return result
    flips = int(np.count_nonzero(decide(reference, score) != decide(actual, score)))
    metrics = {**result.metrics, "decision_flips": float(flips)}
    detail = f"{flips} decisions flip" if flips else result.detail
    return replace(result, ok=result.ok and not flips, metrics=metrics, detail=detail)


def worst(comparisons: Sequence[Comparison]) -> Comparison:
    """The one to show for several samples: a failed one first, then the lowest SNR."""
    return min(comparisons, key=lambda c: (c.ok, c.metrics.get("snr_db", SNR_CAP)))
