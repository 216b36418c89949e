"""How far a deployed detector is from the float one, on the same images.

Both have their own constants (bank, statistics, threshold), so their numbers are not compared one by
one, but by what they lead to: order of the images, decisions, and where the maps look.

    auroc, f1               of the deployed detector on labelled images; float_auroc, float_f1
    auroc_loss, f1_loss     float minus deployed
    flips                   share of images that are decided otherwise
    rank_correlation        Spearman's, of the image scores
    map_correlation         Pearson's, of all cells of all maps
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.detector import Detector
from adcompile.anomaly.maps import Array
from adcompile.anomaly.metrics import auroc, confusion
from adcompile.anomaly.threshold import is_anomalous
from adcompile.errors import InputError
from adcompile.lower.search import Budget

METRICS = frozenset(
    (
        *("auroc", "f1", "float_auroc", "float_f1", "auroc_loss", "f1_loss"),
        *("flips", "rank_correlation", "map_correlation"),
    )
)
CELLS = 64  # a map is averaged down to at most this many cells per side

Decisions = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What a detector says of N images: raw scores [N], decisions [N], averaged maps [N, h, w]."""

    scores: Array
    anomalous: Decisions
    maps: Array


def ask(
    detector: Detector, inputs: Iterable[Array], watch: Callable[[int], None] | None = None
) -> Answers:
    """A detector's answers to inputs [1, C, H, W]. InputError when one of them is not finite."""
    score = detector.contract.score
    assert score is not None
    scores: list[float] = []
    maps: list[Array] = []
    for number, image in enumerate(inputs):
        if watch is not None:
            watch(number)
        value, heat = detector(image)
        if not np.isfinite(value).all() or not np.isfinite(heat).all():
            raise InputError("the detector's result is not finite", where=f"image {number}")
        scores.append(float(value[0]))
        maps.append(averaged(heat[0]))
    found = np.asarray(scores, dtype=np.float32)
    return Answers(found, is_anomalous(found, score), np.stack(maps))


def averaged(heat: Array) -> Array:
    """Means of equal blocks of a map [H, W], so that no side has more than CELLS; the last blocks of
    a side are smaller when it does not divide."""
    rows = _block_means(heat.astype(np.float64), 0)
    return np.asarray(_block_means(rows, 1), dtype=np.float32)


def _block_means(values: Floats, axis: int) -> Floats:
    size = int(values.shape[axis])
    step = -(-size // CELLS)
    starts = np.arange(0, size, step)
    sums: Floats = np.add.reduceat(values, starts, axis)
    counts = np.minimum(step, size - starts)
    means: Floats = sums / np.expand_dims(counts, 1 - axis)
    return means


def distance(reference: Answers, other: Answers, labels: Sequence[int]) -> dict[str, float]:
    """Every metric that the images allow; those of labels only with images of both kinds."""
    found = {
        "flips": int(np.count_nonzero(reference.anomalous ^ other.anomalous)) / len(labels),
        "rank_correlation": correlation(_ranks(reference.scores), _ranks(other.scores)),
        "map_correlation": correlation(reference.maps, other.maps),
    }
    if 0 < sum(labels) < len(labels):
        base, own = (_quality(answers, labels) for answers in (reference, other))
        found |= {f"float_{name}": value for name, value in base.items()} | own
        found |= {f"{name}_loss": base[name] - own[name] for name in own}
    return found


def _quality(answers: Answers, labels: Sequence[int]) -> dict[str, float]:
    counts = confusion(answers.anomalous.astype(np.float32), labels, 0.5)
    return {"auroc": auroc(answers.scores, labels), "f1": counts.f1}


def correlation(a: Array, b: Array) -> float:
    """Pearson's; a constant has none with anything but another constant."""
    x, y = _centred(a), _centred(b)
    size = float(np.sqrt((x @ x) * (y @ y)))
    if size == 0.0:
        return float(not x.any() and not y.any())
    return float(x @ y) / size


def _centred(values: Array) -> Floats:
    wide: Floats = values.astype(np.float64).ravel()
    wide -= wide.mean()
    return wide


def _ranks(values: Array) -> Array:
    """Ranks from 0; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(last - (counts + 1) / 2, dtype=np.float32)[inverse]


def default_budgets(labels: Sequence[int]) -> tuple[Budget, ...]:
    """What a deployed detector may lose when nobody says: enough to stop a broken one.

    With few images a single one moves AUROC a lot, and a bank that was selected again moves some: as
    much as one image of the rarer kind can cost is never too much.
    """
    rarer = min(sum(labels), len(labels) - sum(labels))
    maps = Budget("map_correlation", True, 0.5)
    if not rarer:
        return (maps,)
    return (Budget("auroc_loss", False, round(max(0.05, 1.0 / rarer), 3)), maps)
