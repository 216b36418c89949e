"""Match two sets of detections whose order and number may differ.

Rows are matched greedily by descending reference score: same label (when there are labels), largest
IoU (when there are boxes), closest score, in this order of importance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from adcompile.runtime.executor import Array

ROLES = ("boxes", "labels", "scores", "masks")
Floats = npt.NDArray[np.float64]


def group_of(roles: Mapping[str, str]) -> dict[str, str]:
    """Role to output name of a detector's outputs; empty without boxes or with a role twice."""
    found: dict[str, str] = {}
    for name, role in roles.items():
        if role in ROLES:
            if role in found:
                return {}
            found[role] = name
    return found if "boxes" in found and len(found) > 1 else {}


@dataclass
class Rows:
    """Detections as arrays with one row each; ``problem`` says why they are not that."""

    arrays: dict[str, Array] = field(default_factory=dict[str, Array])
    count: int = 0
    problem: str = ""

    def take(self, role: str, index: Sequence[int]) -> Array:
        """The rows of one role at *index*."""
        return self.arrays[role][np.asarray(index, dtype=np.intp)]


def rows_of(group: Mapping[str, str], values: Mapping[str, Array]) -> Rows:
    """The detections in *values*. A leading batch dimension of 1 is dropped."""
    arrays = {role: values[name] for role, name in group.items()}
    boxes = arrays["boxes"]
    if boxes.ndim == 3 and boxes.shape[0] == 1:
        arrays = {role: a[0] if a.ndim and a.shape[0] == 1 else a for role, a in arrays.items()}
        boxes = arrays["boxes"]
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        return Rows(problem=f"boxes have shape {list(boxes.shape)}, expected [rows, 4]")
    count = len(boxes)
    wrong = [f"{role} {list(a.shape)}" for role, a in arrays.items() if len(a.shape) == 0]
    wrong += [f"{role} {len(a)}" for role, a in arrays.items() if a.ndim and len(a) != count]
    if wrong:
        return Rows(problem=f"{count} boxes, but {', '.join(wrong)}")
    return Rows(arrays, count)


@dataclass(frozen=True, slots=True)
class Summary:
    """Whether enough rows were matched, in numbers and words."""

    ok: bool
    metrics: Mapping[str, float]
    text: str


@dataclass
class Match:
    """Pairs of rows: ``left[i]`` of the reference belongs to ``right[i]``."""

    reference: int
    actual: int
    left: list[int] = field(default_factory=list[int])
    right: list[int] = field(default_factory=list[int])

    def summary(self, fraction: float) -> Summary:
        """Matched rows against the larger of both counts; *fraction* of it must be matched."""
        total = max(self.reference, self.actual)
        share = 1.0 if total == 0 else len(self.left) / total
        lost, extra = self.reference - len(self.left), self.actual - len(self.left)
        words: list[str] = []
        if self.reference != self.actual:
            words.append(f"{self.actual} detections, the reference has {self.reference}")
        if lost or extra:
            words.append(f"{lost} of the reference not found, {extra} not in the reference")
        metrics = {
            "detections": float(self.actual),
            "reference": float(self.reference),
            "matched": share,
        }
        return Summary(share >= fraction, metrics, "; ".join(words))


def match(reference: Rows, actual: Rows, iou: float, apart: float = math.inf) -> Match:
    """Pair rows whose boxes overlap by at least *iou* and whose scores differ by at most *apart*, of
    equal labels, best pairs first."""
    found = Match(reference.count, actual.count)
    if not reference.count or not actual.count:
        return found
    overlap = box_iou(_floats(reference, "boxes"), _floats(actual, "boxes"))
    allowed = overlap >= iou
    if "labels" in reference.arrays and "labels" in actual.arrays:
        left, right = reference.arrays["labels"], actual.arrays["labels"]
        allowed &= left.reshape(-1, 1) == right.reshape(1, -1)
    scores, others = _scores(reference), _scores(actual)
    with np.errstate(over="ignore"):  # infinite scores are the largest numbers here
        allowed &= np.abs(scores[:, None] - others[None, :]) <= apart
    free = np.ones(actual.count, dtype=bool)
    for row in np.argsort(-scores, kind="stable"):
        candidates = np.flatnonzero(allowed[row] & free)
        if not len(candidates):
            continue
        # overlap in steps of 1e-4, so that the score decides between boxes that are nearly the same
        steps = np.round(overlap[row, candidates], 4)
        order = np.lexsort((np.abs(others[candidates] - scores[row]), -steps))
        chosen = int(candidates[order[0]])
        free[chosen] = False
        found.left.append(int(row))
        found.right.append(chosen)
    return found


def _floats(rows: Rows, role: str) -> Floats:
    return np.nan_to_num(np.asarray(rows.arrays[role], dtype=np.float64))


def _scores(rows: Rows) -> Floats:
    if "scores" not in rows.arrays:
        return np.zeros(rows.count)
    return _floats(rows, "scores").reshape(rows.count, -1)[:, 0]


def box_iou(first: Floats, second: Floats) -> Floats:
    """Overlap of every box ``x1 y1 x2 y2`` of *first* with every one of *second*, 0 … 1.

    Boxes without area overlap fully with an equal box (to 1e-3 pixels) and with no other.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides: Floats = np.maximum(high - low, 0.0)
    inside: Floats = sides[:, :, 0] * sides[:, :, 1]
    areas: Floats = _area(first)[:, None] + _area(second)[None, :]
    union = areas - inside
    same = np.abs(first[:, None, :] - second[None, :, :]).max(axis=2) <= 1e-3
    ratio: Floats = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
    overlap: Floats = np.maximum(ratio, same.astype(np.float64))
    return overlap


def _area(boxes: Floats) -> Floats:
    sides: Floats = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    return sides[:, 0] * sides[:, 1]
