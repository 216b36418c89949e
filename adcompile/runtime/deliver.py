"""Results of one run as files and as plain data: arrays, detections, anomaly decision, drawings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from adcompile.contract import Contract, Score
from adcompile.detection.draw import draw
from adcompile.detection.fixed import restore
from adcompile.detection.found import Found
from adcompile.errors import FormatError, InputError
from adcompile.manifest import Manifest
from adcompile.outputs import CLASS_MAP
from adcompile.runtime.arrays import safe_names, save_array
from adcompile.runtime.decision import decide, limit_of
from adcompile.runtime.executor import Array
from adcompile.runtime.heatmap import Picture, overlay, plain_map, threshold_scale, to_picture
from adcompile.runtime.images import ImageArray, as_rgb
from adcompile.runtime.preprocess import Placement
from adcompile.runtime.segments import (
    Labels,
    Segment,
    labels_of,
    over_picture,
    paint,
    segments,
)

DETECTOR_ROLES = ("boxes", "labels", "scores", "masks")
JSON_DETECTIONS = 1000
MOST_CLASSES = 5


@dataclass
class Delivery:
    """What was delivered: ``summary`` is plain data for JSON, ``files`` the written names."""

    summary: dict[str, object] = field(default_factory=dict[str, object])
    files: list[str] = field(default_factory=list[str])


def deliver(
    manifest: Manifest,
    outputs: Mapping[str, Array],
    folder: Path | None,
    image: ImageArray | None = None,
    where: Placement | None = None,
    min_score: float = 0.5,
) -> Delivery:
    """Summarise *outputs* and, with *folder*, write them there.

    Arrays are written as the model gives them. Detections also as ``detections.npz`` in the pixels
    of the original *image*, drawn in ``detections.png``; anomaly maps as ``heatmap.png``; class maps as
    ``segments.png`` and, by number, ``segment_labels.png``.
    Raises InputError when the folder cannot be written.
    """
    delivery = Delivery()
    outputs = _tensors(outputs)
    roles = manifest.roles or manifest.contract.roles
    _arrays(delivery, outputs, roles, folder)
    picture = None if image is None else as_rgb(image)
    found = _detections(outputs, roles, where)
    if found is not None:
        _deliver_detections(delivery, found, manifest.contract, folder, picture, min_score)
    _anomaly(delivery, outputs, roles, manifest.contract)
    _classes(delivery, outputs, roles, manifest.contract.classes)
    seen = _segments(delivery, outputs, manifest, where)
    if seen is not None and folder is not None:
        _write_segments(delivery, *seen, folder, None if where is None else picture)
    for name, role in roles.items():
        if role == "map" and name in outputs and folder is not None:
            _heatmap(delivery, outputs[name], folder, picture, where, manifest.contract.score)
            break
    return delivery


def _classes(
    delivery: Delivery,
    outputs: Mapping[str, Array],
    roles: Mapping[str, str],
    names: Sequence[str],
) -> None:
    """The highest values of an output that is one row of class scores, as the model gives them."""
    for output, array in outputs.items():
        row = array.ndim == 2 and array.shape[0] == 1 < array.shape[1] and array.dtype.kind == "f"
        if not row or roles.get(output, "tensor") != "tensor":
            continue
        best = np.argsort(-array[0].astype(np.float64), kind="stable")[:MOST_CLASSES]
        delivery.summary["classes"] = [
            {
                "output": output,
                "label": int(label),
                "class": names[int(label)] if int(label) < len(names) else "",
                "value": float(array[0, label]),
            }
            for label in best
        ]
        return


def _segments(
    delivery: Delivery,
    outputs: Mapping[str, Array],
    manifest: Manifest,
    where: Placement | None,
) -> tuple[Labels, list[Segment]] | None:
    """The class of every pixel, of the original image where it is known, and what that comes to; None
    without a class map."""
    labels = _class_map(outputs, manifest.roles or manifest.contract.roles)
    if labels is None:
        return None
    if where is not None:
        labels = over_picture(labels, where)
    found = segments(labels, manifest.contract.classes)
    delivery.summary["segments"] = [each.record() for each in found]
    return labels, found


def _write_segments(
    delivery: Delivery,
    labels: Labels,
    found: Sequence[Segment],
    folder: Path,
    picture: Picture | None,
) -> None:
    """*picture* (black without) painted by its classes, and the class of every pixel as a grey PNG of 16
    bits."""
    below = np.zeros((*labels.shape, 3), np.uint8) if picture is None else picture
    _write_png(folder / "segments.png", paint(below, labels, found))
    numbers = np.clip(labels, 0, 65535).astype(np.uint16)
    _write_png(folder / "segment_labels.png", numbers)
    delivery.files += ["segments.png", "segment_labels.png"]


def _class_map(outputs: Mapping[str, Array], roles: Mapping[str, str]) -> Labels | None:
    for name, array in outputs.items():
        if roles.get(name) == CLASS_MAP and (labels := labels_of(array)) is not None:
            return labels
    return None


def _tensors(outputs: Mapping[str, object]) -> dict[str, Array]:
    """All outputs as tensors: items of a sequence are numbered, an absent optional is left out."""
    found: dict[str, Array] = {}
    for name, value in outputs.items():
        items = cast("list[Array]", value) if isinstance(value, list) else None
        if items is not None:
            found |= {f"{name}_{index}": item for index, item in enumerate(items)}
        elif value is not None:
            found[name] = cast(Array, value)
    return found


def show(
    manifest: Manifest,
    outputs: Mapping[str, Array],
    image: ImageArray,
    where: Placement | None,
    min_score: float = 0.5,
) -> tuple[dict[str, object], Picture]:
    """The summary of *outputs* as plain data, and *image* with what was found drawn on it."""
    delivery = Delivery()
    roles = manifest.roles or manifest.contract.roles
    picture = as_rgb(image)
    found = _detections(outputs, roles, where)
    if found is not None:
        _deliver_detections(delivery, found, manifest.contract, None, picture, min_score)
        names = dict(enumerate(manifest.contract.classes))
        picture = draw(picture, found, names, min_score=min_score)
    seen = _segments(delivery, outputs, manifest, where)
    if seen is not None and where is not None:
        picture = paint(picture, *seen)
    _anomaly(delivery, outputs, roles, manifest.contract)
    name = next((n for n, role in roles.items() if role == "map" and n in outputs), None)
    if name is not None and where is not None:
        values = to_picture(outputs[name], where)
        picture = overlay(picture, *_on_scale(values, manifest.contract.score))
    return delivery.summary, picture


def _arrays(
    delivery: Delivery, outputs: Mapping[str, Array], roles: Mapping[str, str], folder: Path | None
) -> None:
    table: list[dict[str, object]] = []
    files = safe_names(outputs)
    for name, array in outputs.items():
        row: dict[str, object] = {
            "name": name,
            "role": roles.get(name, "tensor"),
            "dtype": str(array.dtype),
            "shape": list(array.shape),
        }
        if array.size and array.dtype.kind in "fiub":
            row["min"], row["max"] = float(array.min()), float(array.max())
        if folder is not None:
            file = files[name]
            save_array(folder / file, array)
            delivery.files.append(file)
            row["file"] = file
        table.append(row)
    delivery.summary["outputs"] = table


def _detections(
    outputs: Mapping[str, Array], roles: Mapping[str, str], where: Placement | None
) -> Found | None:
    named = {role: outputs[n] for n, role in roles.items() if role in DETECTOR_ROLES}
    if not {"boxes", "labels", "scores"} <= set(named):
        return None
    if named["boxes"].ndim == 3 and named["boxes"].shape[0] == 1:
        named = {role: array[0] for role, array in named.items()}
    if where is not None and "masks" in named and named["masks"].shape[-2:] != where.size:
        del named["masks"]  # not pasted into the image: delivered as an array, not drawn
    try:
        found = Found.of(named)
        return found if where is None else restore(found, where)
    except (FormatError, InputError):
        return None  # the roles are a guess from names; the arrays were delivered all the same


def _deliver_detections(
    delivery: Delivery,
    found: Found,
    contract: Contract,
    folder: Path | None,
    picture: Picture | None,
    min_score: float,
) -> None:
    names = dict(enumerate(contract.classes))
    best = np.argsort(-found.scores, kind="stable")[:JSON_DETECTIONS]
    delivery.summary["detections"] = [
        {
            "label": int(found.labels[row]),
            "class": names.get(int(found.labels[row]), ""),
            "score": round(float(found.scores[row]), 6),
            "box": [round(float(side), 3) for side in found.boxes[row]],
        }
        for row in best
    ]
    delivery.summary["detections_total"] = len(found)
    if folder is None:
        return
    arrays: dict[str, Array] = {
        "boxes": found.boxes,
        "labels": found.labels,
        "scores": found.scores,
    }
    if found.masks is not None:
        arrays["masks"] = found.masks >= 0.5
    _write_npz(folder / "detections.npz", arrays)
    delivery.files.append("detections.npz")
    if picture is not None:
        _write_png(folder / "detections.png", draw(picture, found, names, min_score=min_score))
        delivery.files.append("detections.png")


def _anomaly(
    delivery: Delivery, outputs: Mapping[str, Array], roles: Mapping[str, str], contract: Contract
) -> None:
    name = next((n for n, role in roles.items() if role == "score" and n in outputs), None)
    if name is None or outputs[name].size != 1:
        return
    value = float(outputs[name].reshape(-1)[0])
    delivery.summary["score"] = value
    raw = next((n for n, role in roles.items() if role == "raw_score" and n in outputs), None)
    if raw is not None and outputs[raw].size == 1:
        delivery.summary["raw_score"] = float(outputs[raw].reshape(-1)[0])
    score = contract.score
    if score is None or limit_of(score) is None:
        return
    anomalous = bool(decide(outputs[name], score).reshape(-1)[0])
    delivery.summary["decision"] = "anomalous" if anomalous else "normal"


def _heatmap(
    delivery: Delivery,
    values: Array,
    folder: Path,
    picture: Picture | None,
    where: Placement | None,
    score: Score | None,
) -> None:
    flat = plain_map(values)
    if picture is None or where is None:
        blank = np.zeros((*flat.shape, 3), np.uint8)
        drawn = overlay(blank, *_on_scale(flat, score), opacity=1.0)
    else:
        drawn = overlay(picture, *_on_scale(to_picture(values, where), score))
    _write_png(folder / "heatmap.png", drawn)
    delivery.files.append("heatmap.png")


def _on_scale(
    values: npt.NDArray[np.float32], score: Score | None
) -> tuple[npt.NDArray[np.float32], float, float]:
    """A map with the ends of its colours: the contract's scale, on which normal images stay cold.

    Without a threshold the map's own extremes are the ends.
    """
    limit = None if score is None else score.pixel_threshold
    middle = score.threshold if score is not None and limit is None else limit
    if score is None or middle is None:
        return values, float(np.nanmin(values)), float(np.nanmax(values))
    return threshold_scale(values, score.minimum or 0.0, middle, score.maximum), 0.0, 1.0


def _write_png(path: Path, pixels: Picture | npt.NDArray[np.uint16]) -> None:
    try:
        Image.fromarray(pixels).save(path, format="PNG")
    except OSError as error:
        raise _unwritable(path, error) from error


def _write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    try:
        with path.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **dict(arrays))
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError("cannot write a result", where=str(path), why=error.strerror or str(error))
