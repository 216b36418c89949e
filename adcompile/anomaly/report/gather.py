"""Collects one subject's results while its images are scored, and writes its files.

```
REPORT/SUBJECT/
  test_outputs.csv              R3's table; pixel_level_test_outputs.csv when there are masks
  predictions.csv               R1's table
  r0.csv                        R0's table, on request
  confusion_matrix.png  image-level-roc.png  pixel-level-roc.png  image-level-scores-histogram.png
  images/KIND/NAME_overlay.png  … and the other pictures that were asked for
  csv/KIND/NAME.csv             the anomaly map, on request
```
"""

from __future__ import annotations

import base64
import io
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import quote

import numpy as np
from PIL import Image

from adcompile.anomaly.detector import Outcome
from adcompile.anomaly.images import read_mask, read_pixels, truth_of
from adcompile.anomaly.maps import Array
from adcompile.anomaly.metrics import Confusion, auroc, roc_points
from adcompile.anomaly.report import charts, pictures, tables
from adcompile.anomaly.report.drawing import Drawing
from adcompile.anomaly.report.rows import Mask, Row, row_of
from adcompile.anomaly.samples import Sample
from adcompile.anomaly.threshold import raw_threshold
from adcompile.contract import Contract, Preprocess, Score
from adcompile.errors import InputError, UsageError
from adcompile.runtime.heatmap import Picture, threshold_scale, to_picture
from adcompile.runtime.images import as_rgb
from adcompile.runtime.preprocess import place

KINDS = ("heatmap", "overlay", "gray", "mask", "segmentation", "histogram", "combined")
"""Pictures that can be written per image."""
THUMB = 208
"""Side of the pictures on the page, in pixels."""
SAMPLED = 256
"""Pixels per image and class that the drawn pixel ROC is made from; its area is exact."""


@dataclass(frozen=True)
class ReportOptions:
    """What is written besides page, charts and R3's tables."""

    kinds: tuple[str, ...] = ("combined",)
    maps: bool = False
    r0: bool = False

    @classmethod
    def parse(cls, text: str, *, maps: bool = False, r0: bool = False) -> ReportOptions:
        """*text* is ``all``, ``none``, or names of pictures joined by commas."""
        names = {"all": KINDS, "none": ()}.get(text)
        if names is None:
            names = tuple(word.strip() for word in text.split(",") if word.strip())
        odd = sorted(set(names) - set(KINDS))
        if odd:
            raise UsageError(
                f"no picture is called {odd[0]!r}", fix="all, none, or of " + ", ".join(KINDS)
            )
        return cls(names, maps, r0)


@dataclass(frozen=True)
class Thumbs:
    """Small pictures of one image as data URIs."""

    photo: str
    overlay: str
    segmentation: str


class _Spool:
    """Bytes of any number of small pictures in a temporary file, so that memory stays bounded."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()

    def put(self, data: bytes) -> tuple[int, int]:
        """Where the bytes are: start and length."""
        start = self._file.seek(0, 2)
        self._file.write(data)
        return start, len(data)

    def get(self, place: tuple[int, int]) -> bytes:
        self._file.seek(place[0])
        return self._file.read(place[1])

    def close(self) -> None:
        self._file.close()


@dataclass
class _Pixels:
    """Evenly spaced order statistics of each image's pixels, with weights, for the drawn ROC."""

    values: list[Array] = field(default_factory=list[Array])
    labels: list[Array] = field(default_factory=list[Array])
    weights: list[Array] = field(default_factory=list[Array])

    def add(self, heat: Array, truth: Mask) -> None:
        for label in (False, True):
            part = np.sort(heat[truth == label])
            count = min(len(part), SAMPLED)
            if count:
                at = np.linspace(0, len(part) - 1, count).astype(np.intp)
                self.values.append(part[at])
                self.labels.append(np.full(count, label, np.float32))
                self.weights.append(np.full(count, len(part) / count, np.float32))

    def curve(self, name: str, area: float) -> charts.Curve | None:
        if not self.values:
            return None
        order = np.argsort(-np.concatenate(self.values), kind="stable")
        labels = np.concatenate(self.labels)[order].astype(np.float64)
        weights = np.concatenate(self.weights)[order].astype(np.float64)
        hits = np.append(0.0, np.cumsum(weights * labels))
        alarms = np.append(0.0, np.cumsum(weights * (1.0 - labels)))
        if hits[-1] == 0 or alarms[-1] == 0:
            return None
        return charts.Curve(name, alarms / alarms[-1], hits / hits[-1], area)


class Gathering:
    """One subject's rows and pictures. Give :meth:`see` to ``run_samples``, then :meth:`finish`."""

    def __init__(
        self, name: str, folder: Path, contract: Contract, spec: Preprocess, options: ReportOptions
    ) -> None:
        if contract.score is None or contract.score.threshold is None:
            raise UsageError("the model has no threshold", where=name)
        self.name = name
        self.folder = folder
        self.score: Score = contract.score
        self.spec = spec
        self.options = options
        self.rows: list[Row] = []
        self._thumbs: list[tuple[tuple[int, int], ...]] = []
        self._spool = _Spool()
        self._pixels = _Pixels()
        self._stems: list[str] = []
        self._taken: set[str] = set()
        self.image_curve: charts.Curve | None = None
        self.pixel_curve: charts.Curve | None = None
        self.outcome: Outcome | None = None

    def see(self, sample: Sample, raw: float, heat: Array) -> None:
        """Take one scored image: its row, its pictures."""
        truth = truth_of(sample, self.spec)
        if truth is None and not sample.label:
            truth = np.zeros(heat.shape, dtype=np.bool_)
        masked = truth is not None and truth.shape == heat.shape
        row = row_of(sample, raw, heat, self.score, truth if masked else None)
        if masked:
            self._pixels.add(heat, cast("Mask", truth))
        self.rows.append(row)
        pixels = sample.pixels if sample.pixels is not None else read_pixels(sample.path)
        photo, where = as_rgb(pixels), place(pixels, self.spec)[1]
        whole = to_picture(heat, where)
        unit = self._unit(whole)
        mask = pictures.predicted_mask(whole, raw_threshold(self.score, pixel=True))
        real = _truth_picture(sample, photo)
        segmented = pictures.segmentation_picture(photo, mask, real)
        shown = (photo, pictures.overlay_picture(photo, unit), segmented)
        self._thumbs.append(tuple(self._spool.put(_jpeg(picture)) for picture in shown))
        self._stems.append(self._stem(row))
        self._write(row, photo, whole, unit, mask, real, segmented)
        if self.options.maps:
            tables.write_map(self.folder / "csv" / f"{self._stems[-1]}.csv", heat)

    def _unit(self, heat: Array) -> Array:
        """The map on 0…1 for its colours; see :func:`threshold_scale`."""
        low = self.score.minimum or 0.0
        return threshold_scale(
            heat, low, raw_threshold(self.score, pixel=True), self.score.maximum
        )

    def thumbs(self, number: int) -> Thumbs:
        """The small pictures of an image."""
        coded = [base64.b64encode(self._spool.get(place)) for place in self._thumbs[number]]
        return Thumbs(*("data:image/jpeg;base64," + text.decode("ascii") for text in coded))

    def close(self) -> None:
        """Let go of the small pictures."""
        self._spool.close()

    def link(self, number: int) -> str:
        """From the page to the combined figure of an image; empty when there is none."""
        if "combined" not in self.options.kinds:
            return ""
        return quote(f"{self.folder.name}/images/{self._stems[number]}_combined.png")

    def _write(
        self,
        row: Row,
        photo: Picture,
        heat: Array,
        unit: Array,
        mask: Mask,
        real: Mask | None,
        segmented: Picture,
    ) -> None:
        if not self.options.kinds:
            return
        made: dict[str, Picture] = {
            "heatmap": pictures.heat_picture(unit),
            "overlay": pictures.overlay_picture(photo, unit),
            "gray": pictures.gray_picture(unit),
            "mask": pictures.mask_picture(mask),
            "segmentation": segmented,
        }
        if {"histogram", "combined"} & set(self.options.kinds):
            chart = self._pixel_histogram(heat, real).picture()
            made["histogram"] = np.asarray(chart, dtype=np.uint8)
        if "combined" in self.options.kinds:
            made["combined"] = self._combined(row, photo, made, real)
        for kind in self.options.kinds:
            path = self.folder / "images" / f"{self._stems[-1]}_{kind}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                Image.fromarray(made[kind]).save(path)
            except OSError as error:
                raise InputError(
                    "cannot write a picture", where=str(path), why=str(error)
                ) from error

    def _stem(self, row: Row) -> str:
        """KIND/NAME, with a number when two images share it."""
        base = stem = f"{row.kind or 'images'}/{row.path.stem}"
        number = 1
        while stem.casefold() in self._taken:
            number += 1
            stem = f"{base}_{number}"
        self._taken.add(stem.casefold())
        return stem

    def _pixel_histogram(self, heat: Array, real: Mask | None) -> Drawing:
        groups: list[tuple[str, str, Array]] = [("pixels", "accent", heat)]
        if real is not None and real.any():
            groups = [("normal pixels", "accent", heat[~real]), ("defect", "bad", heat[real])]
        limit = raw_threshold(self.score, pixel=True)
        return charts.histogram_chart(
            "Pixel scores", groups, limit, bins=60, log=True, x="raw score of a pixel"
        )

    def _combined(
        self, row: Row, photo: Picture, made: dict[str, Picture], real: Mask | None
    ) -> Picture:
        panels = [("image", photo)]
        if real is not None:
            panels.append(("ground truth", pictures.mask_picture(real)))
        panels += [
            ("heat map", made["overlay"]),
            ("predicted mask", made["mask"]),
            ("segmentation", made["segmentation"]),
            ("pixel scores", made["histogram"]),
        ]
        word = "anomalous" if row.predicted else "normal"
        text = f"{row.path.name}: {word}, score {row.score:.3f}, limit {row.limit:.3g}"
        return pictures.combined_picture(panels, f"{text} ({row.outcome})")

    def counts(self) -> Confusion:
        """Confusion of all images so far."""
        names = [row.outcome for row in self.rows]
        return Confusion(*(names.count(name) for name in ("TP", "FP", "TN", "FN")))

    def finish(self, outcome: Outcome, category: str, *, model: str, milliseconds: float) -> None:
        """Write tables and charts; the curves stay for the page."""
        self.outcome = outcome
        tables.write_r3(self.folder / "test_outputs.csv", self.rows, self.score, category)
        if any(row.pixel is not None for row in self.rows):
            path = self.folder / "pixel_level_test_outputs.csv"
            tables.write_r3_pixels(path, self.rows)
        tables.write_r1(self.folder / "predictions.csv", self.rows)
        if self.options.r0:
            tables.write_r0(
                self.folder / "r0.csv",
                self.rows,
                self.score,
                self.counts(),
                model=model,
                milliseconds=milliseconds,
            )
        labels = [row.label for row in self.rows]
        if 0 < sum(labels) < len(labels):
            fpr, tpr = roc_points(outcome.scores, labels)
            self.image_curve = charts.Curve(self.name, fpr, tpr, auroc(outcome.scores, labels))
        if outcome.pixel is not None:
            self.pixel_curve = self._pixels.curve(self.name, outcome.pixel.auroc)
        for name, drawing in self.drawings().items():
            self.folder.mkdir(parents=True, exist_ok=True)
            drawing.picture().save(self.folder / f"{name}.png")

    def drawings(self) -> dict[str, Drawing]:
        """The subject's charts by R3's file names."""
        found: dict[str, Drawing] = {
            "confusion_matrix": charts.confusion_chart("Decisions", self.counts()),
            "image-level-scores-histogram": self.score_histogram(),
        }
        if self.image_curve is not None:
            found["image-level-roc"] = charts.roc_chart("Images: ROC", [self.image_curve])
        if self.pixel_curve is not None:
            found["pixel-level-roc"] = charts.roc_chart("Pixels: ROC", [self.pixel_curve])
        return found

    def score_histogram(self) -> Drawing:
        """Scores of normal and anomalous images, with the decision level."""
        normal = [row.score for row in self.rows if not row.label]
        bad = [row.score for row in self.rows if row.label]
        groups = [("normal", "accent", normal), ("anomalous", "bad", bad)]
        limit = self.rows[0].limit if self.rows else 0.5
        return charts.histogram_chart("Image scores", groups, limit)


def _truth_picture(sample: Sample, photo: Picture) -> Mask | None:
    """The mask at the size of the photograph; all clear for a normal image, None when unknown."""
    if sample.truth is not None or sample.mask is not None:
        mask = sample.truth if sample.truth is not None else read_mask(cast("Path", sample.mask))
        if mask.shape == photo.shape[:2]:
            return mask
        size = (photo.shape[1], photo.shape[0])
        moved = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
        return np.asarray(moved, dtype=np.bool_)
    return None if sample.label else np.zeros(photo.shape[:2], dtype=np.bool_)


def _jpeg(picture: Picture) -> bytes:
    """A small JPEG."""
    buffer = io.BytesIO()
    pictures.fitted(picture, THUMB).save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()
