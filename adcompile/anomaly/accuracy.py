"""How far a deployed detector is from the float one, on the same images.

Both have their own constants (bank, statistics, threshold), so their numbers are not compared one by
one, but by what they lead to: order of the images, decisions, and where the maps look.

    auroc, f1               of the deployed detector on labelled images; float_auroc, float_f1
    pixel_auroc, aupro      of the maps' pixels, with a mask for every anomalous image
    …_loss                  float minus deployed
    flips                   share of images that are decided otherwise
    rank_correlation        Spearman's, of the image scores
    map_agreement           chance that a cell among float's hottest 1 % (of all maps) is hotter in the
                            deployed map than another cell is: 1 the same places, 0.5 anywhere

The maps themselves are on scales of their own: int8 calibrated on normal images cuts off the errors of
defects, and what is left of the order is what counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.detector import Detector
from adcompile.anomaly.maps import Array
from adcompile.anomaly.metrics import auroc, confusion
from adcompile.anomaly.pixel_metrics import PixelAccumulator
from adcompile.anomaly.threshold import is_anomalous
from adcompile.errors import InputError
from adcompile.lower.search import Budget

METRICS = frozenset(
    (
        *("auroc", "f1", "float_auroc", "float_f1", "auroc_loss", "f1_loss"),
        *("pixel_auroc", "float_pixel_auroc", "pixel_auroc_loss"),
        *("aupro", "float_aupro", "aupro_loss"),
        *("flips", "rank_correlation", "map_agreement"),
    )
)
UNLABELLED = frozenset({"flips", "rank_correlation", "map_agreement"})
MASKED = frozenset(name for name in METRICS if "pixel" in name or "aupro" in name)
CELLS = 64  # a map is averaged down to at most this many cells per side

HOT = 0.01  # share of the cells that count as hottest

Decisions = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What a detector says of N images: raw scores [N], decisions [N], averaged maps [N, h, w]; and how
    good the maps are pixel by pixel (``pixel_auroc``, ``aupro``), where there were masks."""

    scores: Array
    anomalous: Decisions
    maps: Array
    pixels: Mapping[str, float] = field(default_factory=dict[str, float])


class Pixels:
    """Collects maps [H, W] at full size with their masks, one image at a time."""

    def __init__(self) -> None:
        self._found: PixelAccumulator | None = PixelAccumulator()

    def add(self, heat: Array, label: int, mask: Decisions | None) -> None:
        """Take one image in. An anomalous one without a mask, or a map of another size than its mask,
        leaves nothing to measure."""
        fits = not label if mask is None else mask.shape == heat.shape
        if self._found is not None and fits:
            self._found.add(heat, mask)
        else:
            self._found = None

    def metrics(self) -> dict[str, float]:
        """What all images came to; empty without a defect pixel or a background pixel."""
        if self._found is None:
            return {}
        found = self._found.result()
        values = {"pixel_auroc": found.auroc, "aupro": found.aupro}
        return values if found.maps and np.isfinite([*values.values()]).all() else {}


def ask(
    detector: Detector,
    inputs: Iterable[Array],
    watch: Callable[[int], None] | None = None,
    see: Callable[[int, Array], None] | None = None,
) -> Answers:
    """A detector's answers to inputs [1, C, H, W]; *see* gets the number and whole map of each.

    InputError when one of them is not finite.
    """
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
        if see is not None:
            see(number, heat[0])
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
        "map_agreement": agreement(reference.maps, other.maps),
    }
    if 0 < sum(labels) < len(labels):
        base, own = (
            {**_quality(answers, labels), **answers.pixels} for answers in (reference, other)
        )
        found |= {f"float_{name}": value for name, value in base.items()} | own
        found |= {f"{name}_loss": base[name] - own[name] for name in own}
    return found


def useless(reference: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a detector that tells nothing apart, in the place of those in *reference*."""
    worst = {"flips": 1.0, "auroc": 0.5, "pixel_auroc": 0.5, "map_agreement": 0.5}
    found = {
        name: value if name.startswith("float_") else worst.get(name, 0.0)
        for name, value in reference.items()
    }
    losses = [name for name in reference if name.endswith("_loss")]
    return found | {n: found[f"float_{n[:-5]}"] - found[n[:-5]] for n in losses}


def _quality(answers: Answers, labels: Sequence[int]) -> dict[str, float]:
    counts = confusion(answers.anomalous.astype(np.float32), labels, 0.5)
    return {"auroc": auroc(answers.scores, labels), "f1": counts.f1}


def agreement(reference: Array, other: Array) -> float:
    """The area under the ROC curve of *other* as a detector of the hottest cells of *reference*; 1 when
    that one has none, being constant."""
    limit = np.quantile(reference, 1.0 - HOT)
    hot = reference > limit
    if not hot.any():
        hot = reference >= limit
    return 1.0 if hot.all() else auroc(other, hot)


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
    if not rarer:  # normal images alone: their hottest cells are chance, in part
        return (Budget("map_agreement", True, 0.6),)
    loss = Budget("auroc_loss", False, round(max(0.05, 1.0 / rarer), 3))
    return (loss, Budget("map_agreement", True, 0.9))
