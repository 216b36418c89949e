"""An anomaly map as colours over the picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from adcompile.errors import InputError
from adcompile.runtime.executor import Array
from adcompile.runtime.preprocess import Placement

Picture = npt.NDArray[np.uint8]

OPACITY = 0.4
"""Share of the colour where a map is laid over a photograph."""


def colours(values: npt.NDArray[np.float64]) -> Picture:
    """RGB of values 0 … 1 in the JET scale: dark blue, blue, cyan, yellow, red, dark red.

    Values outside take the end's colour, NaN that of 0.
    """
    clipped = np.clip(np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0) * 4
    planes = [np.clip(1.5 - np.abs(clipped - centre), 0.0, 1.0) for centre in (3.0, 2.0, 1.0)]
    return np.asarray(np.rint(np.stack(planes, axis=-1) * 255), dtype=np.uint8)


def plain_map(values: Array) -> npt.NDArray[np.float32]:
    """The one H×W map in *values* (leading dimensions of 1 are dropped); InputError otherwise."""
    squeezed = np.asarray(values, dtype=np.float32)
    while squeezed.ndim > 2 and squeezed.shape[0] == 1:
        squeezed = squeezed[0]
    if squeezed.ndim != 2 or 0 in squeezed.shape:
        raise InputError(f"an anomaly map of shape {list(values.shape)} cannot be drawn")
    return squeezed


def to_picture(values: Array, where: Placement) -> npt.NDArray[np.float32]:
    """The map over the original image: padding cut off, a crop's outside filled with the minimum."""
    whole = np.asarray(
        Image.fromarray(plain_map(values)).resize(
            (where.size[1], where.size[0]), Image.Resampling.BILINEAR
        )
    )
    height, width = where.resized
    top, left = where.offset
    canvas = np.full((height, width), whole.min(), dtype=np.float32)
    rows, columns = _seen(top, height, where.size[0]), _seen(left, width, where.size[1])
    canvas[rows[1], columns[1]] = whole[rows[0], columns[0]]
    size = (where.original[1], where.original[0])
    return np.asarray(Image.fromarray(canvas).resize(size, Image.Resampling.BILINEAR))


def _seen(
    offset: int, length: int, size: int
) -> tuple[slice[int, int, None], slice[int, int, None]]:
    start, stop = max(offset, 0), min(offset + length, size)
    return slice(start, stop), slice(start - offset, stop - offset)


def threshold_scale(
    heat: npt.NDArray[np.float32], low: float, threshold: float, high: float | None
) -> npt.NDArray[np.float32]:
    """A raw map on 0…1 for colours: *low* is 0, the pixel threshold 0.5, *high* 1.

    The upper half ends at three times the distance from *low* to the threshold when *high* (the
    largest value ever seen) is farther: one extreme defect would make all others look harmless.
    """
    below = max(threshold - low, 1e-12)
    above = 2.0 * below if high is None else min(max(high - threshold, 1e-12), 2.0 * below)
    gap = heat.astype(np.float64) - threshold
    unit = 0.5 + 0.5 * gap / np.where(gap < 0, below, above)
    return np.asarray(np.clip(unit, 0.0, 1.0), dtype=np.float32)


def overlay(
    picture: Picture,
    values: npt.NDArray[np.float32],
    low: float,
    high: float,
    opacity: float = OPACITY,
) -> Picture:
    """*picture* (H×W×1 or 3) tinted by *values* (H×W), which are scaled so that *low* is 0."""
    span = high - low if high > low else 1.0
    tint = colours((values.astype(np.float64) - low) / span)
    colour = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
    mixed = colour * (1.0 - opacity) + tint * opacity
    return np.asarray(np.rint(mixed), dtype=np.uint8)
