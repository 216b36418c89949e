"""Run a detector over a COCO set and say how good it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy.typing as npt

from adcompile.detection.coco import CocoSet, ImageEntry, category_ids, read_coco
from adcompile.detection.found import Found, Picture
from adcompile.detection.precision import ROWS, Prediction, average_precision, predictions
from adcompile.errors import FormatError

Detector = Callable[[Picture], Found | Mapping[str, npt.ArrayLike]]
"""Takes an RGB picture of any size, gives detections in its pixels."""

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Result:
    """What one evaluation found. ``box`` and ``mask`` hold the twelve values of ``ROWS``;
    ``mask`` is None when the detector or the annotations have no masks."""

    images: int
    skipped: tuple[str, ...]  # file names that were not there
    detections: int
    box: tuple[float, ...]
    mask: tuple[float, ...] | None

    def record(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {
            "images": self.images,
            "skipped": list(self.skipped),
            "detections": self.detections,
            "box": dict(zip(ROWS, self.box, strict=True)),
            "mask": None if self.mask is None else dict(zip(ROWS, self.mask, strict=True)),
        }


def evaluate(
    run: Detector,
    coco_json: Path,
    images: Path,
    max_samples: int | None = None,
    *,
    ids: Sequence[int] | None = None,
    classes: Mapping[int, str] | None = None,
    min_score: float = 0.0,
    mask_at: float = 0.5,
    skip_missing: bool = False,
    predictions_to: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Score ``run`` on a COCO detection set.

    ``max_samples`` and ``ids`` choose a subset; ``classes`` names the model's labels (None: they
    are category ids); ``predictions_to`` receives COCO's result JSON with packed masks. Raises
    FormatError for a damaged set or, unless ``skip_missing``, an image that is not there.
    """
    coco = read_coco(coco_json, images)
    to_category = category_ids(coco, classes)
    wanted = coco.subset(max_samples, ids)
    absent = coco.missing(wanted)
    present = _present(coco, wanted, absent, skip_missing)
    entries: list[Prediction] = []
    has_masks = True
    for number, image in enumerate(present, 1):
        found = _detect(run, coco.picture(image)).above(min_score)
        _check_size(found, image)
        has_masks = has_masks and found.masks is not None
        entries += predictions(image.id, found, to_category, mask_at)
        if progress is not None:
            progress(number, len(present))
    if predictions_to is not None:
        write_predictions(predictions_to, entries)
    result = score(coco, present, entries, masks=has_masks)
    return replace(result, skipped=tuple(image.file_name for image in absent))


def score(
    coco: CocoSet, images: Sequence[ImageEntry], entries: Sequence[Prediction], *, masks: bool
) -> Result:
    """Score predictions made before; ``masks``: also by mask, if every object has one."""
    ids = [image.id for image in images]
    box = average_precision(coco, ids, entries, "bbox")
    chosen = frozenset(ids)
    drawn = all(a.segmentation is not None for a in coco.annotations if a.image_id in chosen)
    mask = average_precision(coco, ids, entries, "segm") if masks and drawn else None
    return Result(len(ids), (), len(entries), box, mask)


def write_predictions(path: Path, entries: Sequence[Prediction]) -> None:
    """Write COCO's result format: a JSON list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(entries), separators=(",", ":")) + "\n", encoding="utf-8")


def side_by_side(results: Mapping[str, Result]) -> list[tuple[str, ...]]:
    """Rows ``kind name``, one value in percent per result, and the loss of each against the first.

    For a table: columns are the names of ``results``, then ``loss of NAME`` for all but the first.
    """
    rows: list[tuple[str, ...]] = []
    for kind in ("box", "mask"):
        values = [getattr(result, kind) for result in results.values()]
        if any(value is None for value in values):
            continue
        for index, name in enumerate(ROWS):
            row = [value[index] for value in values]
            shown = [_percent(value) for value in row]
            losses = [
                "" if row[0] < 0 or value < 0 else f"{100 * (row[0] - value):.2f}"
                for value in row[1:]
            ]
            rows.append((f"{kind} {name}", *shown, *losses))
    return rows


def _percent(value: float) -> str:
    return "none" if value < 0 else f"{100 * value:.2f}"


def _present(
    coco: CocoSet, wanted: Sequence[ImageEntry], absent: Sequence[ImageEntry], skip: bool
) -> list[ImageEntry]:
    gone = {image.id for image in absent}
    present = [image for image in wanted if image.id not in gone]
    if gone and (not skip or not present):
        names = ", ".join(image.file_name for image in absent[:_SHOWN])
        raise FormatError(
            f"{len(absent)} of {len(wanted)} images are not in the folder",
            where=str(coco.folder),
            why=f"missing {names}{' …' if len(absent) > _SHOWN else ''}",
            fix="give the folder that holds the set's images, or skip missing ones",
        )
    return present


def _detect(run: Detector, picture: Picture) -> Found:
    answer = run(picture)
    return answer if isinstance(answer, Found) else Found.of(answer)


def _check_size(found: Found, image: ImageEntry) -> None:
    if found.masks is None or not len(found):
        return
    if found.masks.shape[1:] != (image.height, image.width):
        raise FormatError(
            "masks do not have the size of the image",
            where=image.file_name,
            why=f"masks {list(found.masks.shape[1:])}, image {[image.height, image.width]}",
            fix="restore detections to the original size (adcompile.detection.fixed)",
        )
