"""A class for every pixel: read from a model's output, laid over the picture, with a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from adcompile.detection.draw import colour_of
from adcompile.runtime.executor import Array
from adcompile.runtime.heatmap import Picture
from adcompile.runtime.preprocess import Placement

Labels = npt.NDArray[np.int64]
NOTHING = -1  # outside of what the model saw
LEGEND = 12  # classes named in a picture
_OPACITY = 0.5
_BACKGROUND = frozenset({"background", "__background__"})


@dataclass(frozen=True, slots=True)
class Segment:
    """The pixels of one class: their share, 0 … 1, of those that have one."""

    label: int
    name: str  # "" when the class has none
    share: float

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        return {"label": self.label, "class": self.name, "share": round(self.share, 6)}


def labels_of(output: Array) -> Labels | None:
    """The class of every pixel [H,W] of a class map or of scores [1,C,H,W]; None for other shapes.

    The first of equal scores wins; what is not a number is the highest of nothing.
    """
    if output.dtype.kind == "f" and output.ndim == 4 and output.shape[0] == 1 < output.shape[1]:
        scores = np.where(np.isnan(output[0]), -np.inf, output[0])
        return np.asarray(scores.argmax(axis=0), np.int64)
    while output.ndim > 2 and output.shape[0] == 1:
        output = output[0]
    if output.ndim != 2 or 0 in output.shape or output.dtype.kind not in "iu":
        return None
    return output.astype(np.int64)


def over_picture(labels: Labels, where: Placement) -> Labels:
    """The class of every pixel of the original image: that of the nearest one of *labels*."""
    rows, rows_seen = _nearest(labels, where, 0)
    columns, columns_seen = _nearest(labels, where, 1)
    found = labels[rows[:, None], columns[None, :]]
    return np.where(rows_seen[:, None] & columns_seen[None, :], found, NOTHING)


def _nearest(
    labels: Labels, where: Placement, axis: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Along one axis of the original: positions in *labels*, and which of them the model saw."""
    whole, seen = where.original[axis], where.resized[axis]
    at = (np.arange(whole) + 0.5) * seen / whole + where.offset[axis]
    place = np.floor(at * labels.shape[axis] / where.size[axis]).astype(np.int64)
    return np.clip(place, 0, labels.shape[axis] - 1), (at >= 0) & (at < where.size[axis])


def segments(labels: Labels, names: Sequence[str]) -> list[Segment]:
    """The classes in *labels*, those of most pixels first."""
    values, counts = np.unique(labels[labels != NOTHING], return_counts=True)
    total = max(int(counts.sum()), 1)
    order = np.argsort(-counts, kind="stable")
    return [
        Segment(int(values[i]), _name(int(values[i]), names), float(counts[i]) / total)
        for i in order
    ]


def _name(label: int, names: Sequence[str]) -> str:
    return names[label] if 0 <= label < len(names) else ""


def paint(picture: Picture, labels: Labels, found: Sequence[Segment]) -> Picture:
    """*picture* (RGB [H,W,3]) tinted by *labels* [H,W], with a legend of the segments *found* in them; a
    background stays as it is."""
    canvas = picture.astype(np.float32)
    coloured = [each for each in found if each.name.lower() not in _BACKGROUND]
    for each in coloured:
        inside = labels == each.label
        canvas[inside] += _OPACITY * (
            np.asarray(colour_of(each.label), np.float32) - canvas[inside]
        )
    image = Image.fromarray(np.asarray(np.rint(canvas), np.uint8))
    _legend(image, coloured[:LEGEND])
    return np.asarray(image)


def _legend(image: Image.Image, shown: Sequence[Segment]) -> None:
    """Colour, name and share of each class, in the upper left corner."""
    size = max(10, min(image.size) // 40)
    font = ImageFont.load_default(size=size)
    pen = ImageDraw.Draw(image)
    step = size + 4
    words = [f"{each.name or each.label} {each.share:.0%}" for each in shown]
    if not words:
        return
    width = max(int(font.getlength(text)) for text in words) + step + 8
    pen.rectangle((0, 0, width, step * len(words) + 4), fill=(255, 255, 255))
    for row, (each, text) in enumerate(zip(shown, words, strict=True)):
        top = row * step + 4
        pen.rectangle((4, top, 4 + size - 2, top + size - 2), fill=colour_of(each.label))
        pen.text((step + 4, top - 2), text, fill=(0, 0, 0), font=font)
