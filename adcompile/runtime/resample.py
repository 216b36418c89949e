"""Resizing of 8-bit images, in the conventions of Pillow and of OpenCV, in integers.

Everything here is defined by integer arithmetic on tables that are computed in double precision
in the written order of operations, so that C++ reproduces it bit for bit:

``pil_bilinear``
    Pillow's two passes (across, then down, each only when that side changes; since version 13
    Pillow itself goes down first when the height shrinks more, which moves some bytes by one).
    Output ``i`` of
    ``n`` from ``m``: ``scale = m/n``, ``filter = max(scale, 1)``, ``centre = (i+0.5)*scale``,
    taps from ``int(centre - filter + 0.5)`` (at least 0) up to ``int(centre + filter + 0.5)`` (at
    most ``m``), tap weight ``max(0, 1 - |(x - centre + 0.5) * (1/filter)|)`` divided by the sum of
    the weights (added in order of x), rounded half up to 22 fractional bits. A result is
    ``(2^21 + sum(pixel*weight)) >> 22``, clamped to 0 … 255, after each pass.
``pil_nearest``
    Source column ``int(position)``; position starts at ``0.5*(m/n)`` and grows by ``m/n`` through
    repeated addition in double precision.
``cv_bilinear``
    Half-pixel centres, two taps: ``f = float32((i+0.5)*(m/n) - 0.5)``, ``s = floor(f)``, fraction
    ``f - s`` in float32; below 0 and at the last column the fraction is 0. Weights are
    ``round_half_even(2048*w)``. Across: ``r = a*w0 + b*w1``. Down:
    ``(((r0>>4)*v0 >> 16) + ((r1>>4)*v1 >> 16) + 2) >> 2``.
``cv_nearest``
    Source column ``min(floor(i*(m/n)), m-1)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]
Index = npt.NDArray[np.intp]

PIL_BITS = 22
CV_ONE = 2048
_BAND = 1 << 21  # values per working block: keeps the int32 intermediates in the cache


def resize(image: Bytes, height: int, width: int, convention: str) -> Bytes:
    """Resize H×W×C bytes to *height* × *width*. *convention* is a key of :data:`CONVENTIONS`."""
    if min(height, width, *image.shape[:2]) < 1:
        raise ValueError("sides must be at least 1")
    return CONVENTIONS[convention](image, height, width)


def _pil_bilinear(image: Bytes, height: int, width: int) -> Bytes:
    if width != image.shape[1]:
        image = _across(image, width)
    if height != image.shape[0]:
        image = _down(image, height)
    return image


@lru_cache(maxsize=64)
def pil_weights(size: int, out: int) -> tuple[Index, Ints]:
    """First tap of each output, and the weights (``out`` × taps) in 22-bit fixed point."""
    scale = size / out
    reach = max(scale, 1.0)
    inverse = 1.0 / reach
    taps = math.ceil(reach) * 2 + 1
    first = np.zeros(out, dtype=np.intp)
    table = np.zeros((out, taps), dtype=np.int32)
    for i in range(out):
        centre = (i + 0.5) * scale
        low = max(int(centre - reach + 0.5), 0)
        high = min(int(centre + reach + 0.5), size)
        weights = [_triangle((x - centre + 0.5) * inverse) for x in range(low, high)]
        total = 0.0
        for weight in weights:
            total += weight
        first[i] = low
        for k, weight in enumerate(weights):
            table[i, k] = int(0.5 + weight / total * (1 << PIL_BITS))
    used = int(np.flatnonzero(table.any(axis=0)).max()) + 1
    return first, table[:, :used]


def _triangle(x: float) -> float:
    x = abs(x)
    return 1.0 - x if x < 1.0 else 0.0


def _across(image: Bytes, width: int) -> Bytes:
    height, size, channels = image.shape
    first, table = pil_weights(size, width)
    out = np.empty((height, width, channels), dtype=np.uint8)
    rows = max(1, _BAND // (max(size, width) * channels))
    columns = [np.minimum(first + k, size - 1) for k in range(table.shape[1])]
    for top in range(0, height, rows):
        band = image[top : top + rows].astype(np.int32)
        total = np.full((len(band), width, channels), 1 << (PIL_BITS - 1), dtype=np.int32)
        for k, column in enumerate(columns):
            total += np.take(band, column, axis=1) * table[:, k, np.newaxis]
        out[top : top + rows] = np.clip(total >> PIL_BITS, 0, 255)
    return out


def _down(image: Bytes, height: int) -> Bytes:
    size, width, channels = image.shape
    first, table = pil_weights(size, height)
    out = np.empty((height, width, channels), dtype=np.uint8)
    for i in range(height):
        count = min(table.shape[1], size - int(first[i]))
        weights = table[i, :count]
        total = np.full((width, channels), 1 << (PIL_BITS - 1), dtype=np.int32)
        for k in range(count):
            if weights[k]:
                total += image[first[i] + k].astype(np.int32) * weights[k]
        out[i] = np.clip(total >> PIL_BITS, 0, 255)
    return out


def _pil_nearest(image: Bytes, height: int, width: int) -> Bytes:
    rows = _pil_nearest_index(image.shape[0], height)
    columns = _pil_nearest_index(image.shape[1], width)
    return image[rows][:, columns]


def _pil_nearest_index(size: int, out: int) -> Index:
    step = size / out
    positions = np.full(out, step)
    positions[0] = 0.0 + step * 0.5
    # cumulative addition, one after the other, is what the library does
    index = np.add.accumulate(positions).astype(np.intp)
    return np.minimum(index, size - 1)


def _cv_bilinear(image: Bytes, height: int, width: int) -> Bytes:
    if image.shape[:2] == (height, width):
        return image
    left, right, across = _cv_taps(image.shape[1], width)
    upper, lower, down = _cv_taps(image.shape[0], height)
    out = np.empty((height, width, image.shape[2]), dtype=np.uint8)
    rows = max(1, _BAND // (width * image.shape[2]))
    for top in range(0, height, rows):
        band = slice(top, min(top + rows, height))
        first = _cv_row(image[upper[band]], left, right, across)
        second = _cv_row(image[lower[band]], left, right, across)
        v0, v1 = down[band, 0, np.newaxis, np.newaxis], down[band, 1, np.newaxis, np.newaxis]
        mixed = (((first >> 4) * v0) >> 16) + (((second >> 4) * v1) >> 16)
        out[band] = np.clip((mixed + 2) >> 2, 0, 255)
    return out


def _cv_row(rows: Bytes, left: Index, right: Index, weights: Ints) -> Ints:
    first = rows[:, left].astype(np.int32) * weights[:, 0, np.newaxis]
    return first + rows[:, right].astype(np.int32) * weights[:, 1, np.newaxis]


@lru_cache(maxsize=64)
def _cv_taps(size: int, out: int) -> tuple[Index, Index, Ints]:
    scale = 1.0 / (out / size)
    position = ((np.arange(out) + 0.5) * scale - 0.5).astype(np.float32)
    start = np.floor(position)
    fraction = (position - start).astype(np.float32)
    outside = (start < 0) | (start >= size - 1)
    fraction[outside] = 0.0
    index = np.clip(start, 0, size - 1).astype(np.intp)
    one = np.float32(1.0)
    weights = np.stack([one - fraction, fraction], axis=1) * np.float32(CV_ONE)
    return index, np.minimum(index + 1, size - 1), np.rint(weights).astype(np.int32)


def _cv_nearest(image: Bytes, height: int, width: int) -> Bytes:
    rows = _cv_nearest_index(image.shape[0], height)
    columns = _cv_nearest_index(image.shape[1], width)
    return image[rows][:, columns]


def _cv_nearest_index(size: int, out: int) -> Index:
    step = 1.0 / (out / size)
    index: Index = np.floor(np.arange(out) * step).astype(np.intp)
    return np.minimum(index, size - 1)


CONVENTIONS: Mapping[str, Callable[[Bytes, int, int], Bytes]] = {
    "pil_bilinear": _pil_bilinear,
    "pil_nearest": _pil_nearest,
    "cv_bilinear": _cv_bilinear,
    "cv_nearest": _cv_nearest,
}
