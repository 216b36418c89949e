"""Hold a bundle's detector against the float model: how much was lost, and is it too much?

Golden data of a detector whose constants were measured again comes from the lowered network itself,
so it cannot tell. Here the bundle runs over the images that it keeps for this, and is compared with
what the float model said of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.accuracy import Answers, Pixels, ask, distance
from adcompile.anomaly.bundle_detector import detector_of
from adcompile.anomaly.images import read_mask, read_pixels
from adcompile.anomaly.maps import Array
from adcompile.contract import Preprocess
from adcompile.errors import FormatError, InputError
from adcompile.lower.search import Budget, parse_budget
from adcompile.manifest import Accuracy, JudgedImage, Manifest
from adcompile.runtime.arrays import open_array
from adcompile.runtime.bundle import Bundle
from adcompile.runtime.preprocess import preprocess

PAIRS = {
    "auroc_loss": "AUROC {float_auroc:.4f} -> {auroc:.4f}",
    "f1_loss": "F1 {float_f1:.4f} -> {f1:.4f}",
    "pixel_auroc_loss": "pixel AUROC {float_pixel_auroc:.4f} -> {pixel_auroc:.4f}",
    "aupro_loss": "AUPRO {float_aupro:.4f} -> {aupro:.4f}",
}
FIX = (
    "build with more calibration images, a higher precision, or --budget BOUND, which keeps nodes in "
    "float until it holds"
)


@dataclass(frozen=True)
class AccuracyCheck:
    """Metrics of the deployed detector against float, and the bounds that they must hold."""

    images: int
    budgets: tuple[Budget, ...]
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    problem: str = ""

    @property
    def broken(self) -> tuple[Budget, ...]:
        """Bounds that do not hold."""
        return tuple(b for b in self.budgets if self.metrics and not b.holds(self.metrics))

    @property
    def ok(self) -> bool:
        """True when every bound holds."""
        return not self.problem and not self.broken

    @property
    def text(self) -> str:
        """One sentence."""
        where = f"on {self.images} images"
        if self.problem:
            return f"the deployed detector gives no usable result {where}: {self.problem}"
        if not self.broken:
            return f"deployed against float {where}: {', '.join(map(self._shown, self.budgets))}"
        lost = "; ".join(f"{self._shown(b)}, allowed {b}" for b in self.broken)
        return f"the deployed detector is too far from the float model {where}: {lost}; {FIX}"

    def _shown(self, budget: Budget) -> str:
        value = f"{budget.metric} {self.metrics[budget.metric]:.4f}"
        pair = PAIRS.get(budget.metric)
        return value if pair is None else f"{value} ({pair.format(**self.metrics)})"

    def results(self) -> dict[str, float | str]:
        """The numbers that the manifest keeps."""
        found: dict[str, float | str] = {
            f"against float {name}": round(value, 6) for name, value in self.metrics.items()
        }
        wanted = ", ".join(map(str, self.budgets))
        return {**found, "against float wanted": wanted, "accuracy": self.text}

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        return {
            "ok": self.ok,
            "images": self.images,
            "budgets": [str(b) for b in self.budgets],
            "broken": [str(b) for b in self.broken],
            "metrics": dict(self.metrics),
            "text": self.text,
        }


def check_accuracy(
    bundle: Bundle, record: Accuracy, watch: Callable[[str], None] | None = None
) -> AccuracyCheck:
    """Run the bundle over the images of *record*; FormatError when these are not the bundle's."""
    images = record.images
    budgets = tuple(parse_budget(text) for text in record.budgets)
    detector = detector_of(bundle)
    reference = _reference(bundle, record)
    inputs = _inputs(bundle, record, detector.preprocess)

    def seen(number: int) -> None:
        if watch is not None:
            watch(f"against float: image {number + 1} of {len(images)}")

    pixels = Pixels()

    def whole(number: int, heat: Array) -> None:
        pixels.add(heat, images[number].label, _mask(bundle, images[number]))

    try:
        answers = ask(detector, inputs, seen, whole if record.pixels else None)
    except InputError as error:
        return AccuracyCheck(len(images), budgets, {}, str(error))
    if answers.maps.shape != reference.maps.shape:
        raise FormatError("the float maps are not the detector's", where=record.maps)
    if record.pixels:
        answers = replace(answers, pixels=pixels.metrics())
    labels = [image.label for image in images]
    return AccuracyCheck(len(images), budgets, distance(reference, answers, labels))


def _reference(bundle: Bundle, record: Accuracy) -> Answers:
    _check_listed(bundle.manifest, record.maps)
    maps = np.asarray(open_array(bundle.path, record.maps), dtype=np.float32)
    if len(maps) != len(record.images):
        raise FormatError("not one float map per image", where=record.maps, why=str(len(maps)))
    return Answers(
        np.asarray([image.score for image in record.images], dtype=np.float32),
        np.asarray([image.anomalous for image in record.images], dtype=np.bool_),
        maps,
        record.pixels,
    )


def _inputs(bundle: Bundle, record: Accuracy, spec: Preprocess) -> Iterator[Array]:
    """Input tensors [1, C, H, W] in order."""
    for image in record.images:
        _check_listed(bundle.manifest, image.file)
        if image.file.endswith(".npy"):
            yield np.asarray(open_array(bundle.path, image.file), dtype=np.float32)
        else:
            pixels = read_pixels(bundle.path / image.file)
            yield np.asarray(preprocess(pixels, spec), dtype=np.float32)


def _mask(bundle: Bundle, image: JudgedImage) -> npt.NDArray[np.bool_] | None:
    if not image.mask:
        return None
    _check_listed(bundle.manifest, image.mask)
    return read_mask(bundle.path / image.mask)


def _check_listed(manifest: Manifest, file: str) -> None:
    if file not in manifest.files:
        raise FormatError("a judged image is not listed in the manifest", where=file)
