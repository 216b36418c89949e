"""How far a compiled model agrees with the original on images, with or without labels.

What is compared follows from the outputs: detections are matched, class scores are compared by the
class that wins, class maps by the class of every pixel, everything else by its values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adcompile.check import detections
from adcompile.check.compare import snr_db
from adcompile.errors import InputError
from adcompile.outputs import CLASS_MAP
from adcompile.runtime.executor import Array
from adcompile.runtime.images import SUFFIXES
from adcompile.runtime.segments import Labels, labels_of

IOU = 0.5  # overlap from which two boxes are the same object
TOP = 5
ARRAYS = (".npz", ".npy")

SAME_CLASS = "same top class"
IN_TOP = f"top class among the first {TOP}"
SAME_PIXELS = "pixels of the same class"
MEAN_IOU = "mean IoU of the classes"
FOUND = "detections found again"
EXTRA = "detections that are not new"
SAME_DECISION = "same decision"
COSINE = "cosine"
SNR = "SNR dB"
EQUAL = "equal"
RIGHT = "right class"
RIGHT_IN_TOP = f"right class among the first {TOP}"
DECISIONS = (SAME_CLASS, SAME_PIXELS, FOUND, EXTRA, SAME_DECISION)
"""What a user of the outputs sees; ``COSINE`` stands in for outputs without any of them."""

Key = tuple[str, str]  # output, measure
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of one output over all images; 1 is best (SNR: the higher the better)."""

    output: str
    measure: str
    mean: float
    worst: float
    worst_image: str

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        return {
            "output": self.output,
            "measure": self.measure,
            "mean": self.mean,
            "worst": self.worst,
            "worst_image": self.worst_image,
        }


@dataclass
class Agreement:
    """The measures of one subject, image after image."""

    images: dict[Key, list[str]] = field(default_factory=dict[Key, list[str]])
    values: dict[Key, list[float]] = field(default_factory=dict[Key, list[float]])

    def add(self, image: str, measured: Mapping[Key, float]) -> None:
        """Keep what was measured on one image."""
        for key, value in measured.items():
            self.images.setdefault(key, []).append(image)
            self.values.setdefault(key, []).append(value)

    def rows(self) -> list[Row]:
        """One row per output and measure."""
        found: list[Row] = []
        for key, numbers in self.values.items():
            output, measure = key
            worst = int(np.argmin(numbers))
            mean = float(np.mean(numbers))
            found.append(Row(output, measure, mean, numbers[worst], self.images[key][worst]))
        return found

    def lowest(self) -> float:
        """The smallest mean of what users see: decisions, else cosines. 1.0 without outputs."""
        outputs = {output for output, _ in self.values}
        found = [1.0]
        for output in outputs:
            means = {r.measure: r.mean for r in self.rows() if r.output == output}
            decided = [means[m] for m in DECISIONS if m in means]
            found += decided or [means[m] for m in (COSINE, EQUAL) if m in means]
        return float(np.nan_to_num(np.min(found)))  # what is not a number agrees with nothing


def agreement(
    reference: Mapping[str, Array], actual: Mapping[str, Array], roles: Mapping[str, str]
) -> dict[Key, float]:
    """Every measure of one image. Raises InputError when an output is missing or has another shape."""
    group = detections.group_of({name: roles.get(name, "tensor") for name in reference})
    found: dict[Key, float] = {}
    if group:
        found.update(_detections(group, reference, actual))
    for name, expected in reference.items():
        if name in group.values():
            continue
        got = actual.get(name)
        if got is None or got.shape != expected.shape:
            what = "is missing" if got is None else f"has shape {list(got.shape)}"
            raise InputError(
                f"output {name!r} {what}", why=f"the reference gives {list(expected.shape)}"
            )
        measured = _output(roles.get(name, "tensor"), expected, got)
        found.update({(name, measure): value for measure, value in measured.items()})
    return found


def correctness(outputs: Mapping[str, Array], label: int) -> dict[Key, float]:
    """Whether the class scores among *outputs* name *label*; empty when there are none."""
    found: dict[Key, float] = {}
    for name, scores in outputs.items():
        if is_class_scores(scores) and label < scores.shape[1]:
            order = np.argsort(-scores[0].astype(np.float64), kind="stable")
            found[name, RIGHT] = float(order[0] == label)
            if scores.shape[1] > 2 * TOP:
                found[name, RIGHT_IN_TOP] = float(label in order[:TOP])
    return found


def is_class_scores(array: Array) -> bool:
    """One row of floats, one per class."""
    return array.dtype.kind == "f" and array.ndim == 2 and array.shape[0] == 1 < array.shape[1]


def has_classes(outputs: Mapping[str, Array], count: int) -> bool:
    """True when one of *outputs* holds scores of *count* classes."""
    return any(is_class_scores(a) and a.shape[1] == count for a in outputs.values())


def _output(role: str, expected: Array, got: Array) -> dict[str, float]:
    if expected.dtype.kind not in "fiub" or not expected.size:
        return {EQUAL: float(np.array_equal(expected, got))}
    wide, other = expected.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(wide)
    # Infinities and NaN are compared as such, the other values by their size.
    odd = np.where(finite, 0.0, wide), np.where(np.isfinite(other), 0.0, other)
    alike = np.array_equal(*odd, equal_nan=True)
    left, right = np.where(finite, wide, 0.0), np.where(finite, other, 0.0)
    # What is not a number is the highest of nothing.
    scores, others = (np.where(np.isnan(a), -np.inf, a) for a in (wide, other))
    found: dict[str, float] = {}
    if is_class_scores(expected):
        order = np.argsort(-others[0], kind="stable")
        found[SAME_CLASS] = float(alike and order[0] == scores[0].argmax())
        if expected.shape[1] > 2 * TOP:
            found[IN_TOP] = float(alike and scores[0].argmax() in order[:TOP])
    elif role == CLASS_MAP:
        found.update(_label_maps(labels_of(expected), labels_of(got)))
    if not alike:
        return found | {COSINE: 0.0, SNR: 0.0}
    found[COSINE] = _cosine(left.ravel(), right.ravel())
    found[SNR] = snr_db(left, right - left)
    return found


def _label_maps(left: Labels | None, right: Labels | None) -> dict[str, float]:
    if left is None or right is None:
        return {}  # the contract calls something a class map that is none
    _, numbers = np.unique(np.stack([left, right]), return_inverse=True)
    first, second = numbers.reshape(2, -1).astype(np.int64)
    classes = int(numbers.max()) + 1
    pairs = np.bincount(first * classes + second, minlength=classes * classes)
    table = pairs.reshape(classes, classes).astype(np.float64)
    both = np.diag(table)
    either = table.sum(0) + table.sum(1) - both
    used = table.sum(1) > 0
    return {
        SAME_PIXELS: float(both.sum() / table.sum()),
        MEAN_IOU: float((both[used] / either[used]).mean()),
    }


def _cosine(left: Floats, right: Floats) -> float:
    if np.array_equal(left, right):
        return 1.0  # which rounding would miss
    size = float(np.linalg.norm(left) * np.linalg.norm(right))
    return min(float(left @ right) / size, 1.0) if size else 0.0


def _detections(
    group: Mapping[str, str], reference: Mapping[str, Array], actual: Mapping[str, Array]
) -> dict[Key, float]:
    first, second = detections.rows_of(group, reference), detections.rows_of(group, actual)
    for rows in (first, second):
        if rows.problem:
            raise InputError("the outputs are not detections", why=rows.problem)
    matched = len(detections.match(first, second, IOU).left)
    name = group["boxes"]
    return {
        (name, FOUND): matched / first.count if first.count else 1.0,
        (name, EXTRA): matched / second.count if second.count else 1.0,
    }


def find_sources(folder: Path) -> list[tuple[Path, str]]:
    """Input files in *folder* with the name of their class: its sub-folder's, or "".

    Images or ``.npz``/``.npy`` files, sorted; of sub-folders the first of each, then the second, so that
    the first N are of all classes. Raises InputError when there are none.
    """
    if not folder.is_dir():
        raise InputError("no such folder of images", where=str(folder))
    own = [(path, "") for path in _files(folder)]
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    inside = [(at, home.name, path) for home in below for at, path in enumerate(_files(home))]
    found = own or [(path, home) for _, home, path in sorted(inside)]
    if not found:
        wanted = ", ".join((*SUFFIXES, *ARRAYS))
        raise InputError("folder holds no image", where=str(folder), fix=f"expected {wanted}")
    return found


def _files(folder: Path) -> list[Path]:
    known = (*SUFFIXES, *ARRAYS)
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in known)
