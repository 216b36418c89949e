"""From a decoded image to the input tensor: the reference of ``contract.Preprocess``.

Generated C++ agrees bit for bit in float32. The steps and their arithmetic:

1. 16-bit samples become their high byte (``v >> 8``).
2. Channels. One to three: repeated. Three to one, by the family of ``resample``:
   ``pil_*``: ``(19595 R + 38470 G + 7471 B + 32768) >> 16``;
   ``cv_*``: ``(9798 R + 19235 G + 3735 B + 16384) >> 15``. ``bgr`` reverses the order.
3. Resize (``adcompile.runtime.resample``) to the size that :func:`placement` gives.
4. Letterbox: centred on a canvas of ``pad_value``; an odd rest goes below and to the right.
   Crop: centred; half a pixel is rounded to the even side, as torchvision does.
5. Numbers, all in float32, one operation after the other without fused multiply-add:
   ``((float32(v) * float32(scale)) - float32(mean)) / float32(std)``. There are only 256 results
   per channel, so they are a table. ``float16``: that value rounded to nearest even. ``uint8``:
   that value rounded to nearest even and clamped to 0 … 255.
6. Layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from adcompile.contract import Preprocess
from adcompile.errors import InputError
from adcompile.runtime.executor import Array
from adcompile.runtime.images import ImageArray
from adcompile.runtime.resample import Bytes, resize

_PIL_GRAY = (19595, 38470, 7471, 16)
_CV_GRAY = (9798, 19235, 3735, 15)
_LAYOUTS = {
    "nchw": ((2, 0, 1), True),
    "chw": ((2, 0, 1), False),
    "nhwc": ((0, 1, 2), True),
    "hwc": ((0, 1, 2), False),
}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image of ``original`` size lies in the tensor; all (height, width), in pixels.

    The image is resized to ``resized`` and its upper left corner put at ``offset`` of the tensor
    of ``size`` (negative where a crop cuts it off).
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Tensor pixels per image pixel, (y, x)."""
        return (self.resized[0] / self.original[0], self.resized[1] / self.original[1])

    def boxes_to_image(self, boxes: Array) -> npt.NDArray[np.float32]:
        """Boxes ``x1 y1 x2 y2`` (last axis) of the tensor in pixels of the original image.

        They are cut off at its border.
        """
        (top, left), (sy, sx) = self.offset, self.scale
        height, width = self.original
        moved: npt.NDArray[np.float64] = np.asarray(boxes, dtype=np.float64)
        moved = (moved - np.array([left, top, left, top])) / np.array([sx, sy, sx, sy])
        limit = np.array([width, height, width, height], dtype=np.float64)
        return np.minimum(np.maximum(moved, 0.0), limit).astype(np.float32)


def placement(height: int, width: int, spec: Preprocess) -> Placement:
    """Size and position that an image of *height* × *width* gets under *spec*.

    Rounding, in integers: ``letterbox`` fits the tighter side exactly and gives the other
    ``floor(side*fit + 1/2)``, at least 1; ``shorter`` gives the longer side
    ``floor(longer*target/shorter)``. Raises InputError when a crop or ``resize: none`` does not fit.
    """
    resized = _resized(height, width, spec)
    free = (spec.size[0] - resized[0], spec.size[1] - resized[1])
    if spec.resize == "letterbox":
        offset = (free[0] // 2, free[1] // 2)
    elif max(free) > 0 or (min(free) < 0 and spec.crop is None and spec.resize != "shorter"):
        raise InputError(
            f"an image of {height}×{width} becomes {resized[0]}×{resized[1]}, "
            f"the tensor holds {spec.size[0]}×{spec.size[1]}",
            why=f"resize is {spec.resize!r}",
            fix="resize to at least the size of the crop",
        )
    else:
        offset = (-_half_even(-free[0]), -_half_even(-free[1]))
    return Placement((height, width), resized, offset, spec.size)


def _half_even(value: int) -> int:
    """value / 2 of a non-negative integer, halves rounded to the even neighbour."""
    return value // 2 + (value % 2 and value // 2 % 2)


def _resized(height: int, width: int, spec: Preprocess) -> tuple[int, int]:
    target = spec.resize_to
    if spec.resize == "none":
        return height, width
    if spec.resize == "stretch":
        if isinstance(target, int):
            return target, target
        return target or spec.size
    if spec.resize == "letterbox":
        return _inside(height, width, *(target if isinstance(target, tuple) else spec.size))
    if isinstance(target, tuple):
        target = min(target)
    return _shorter(height, width, min(spec.size) if target is None else target)


def _inside(height: int, width: int, rows: int, columns: int) -> tuple[int, int]:
    if rows * width <= columns * height:  # the height is the tighter side
        return rows, max(1, (2 * width * rows + height) // (2 * height))
    return max(1, (2 * height * columns + width) // (2 * width)), columns


def _shorter(height: int, width: int, target: int) -> tuple[int, int]:
    if height <= width:
        return target, target * width // height
    return target * height // width, target


def preprocess(image: ImageArray, spec: Preprocess) -> Array:
    """The input tensor of one image (H×W, H×W×1 or H×W×3 in RGB order; 8 or 16 bit).

    Raises InputError for other shapes and dtypes.
    """
    return place(image, spec)[0]


def place(image: ImageArray, spec: Preprocess) -> tuple[Array, Placement]:
    """Like :func:`preprocess`, with where the image lies in the tensor."""
    pixels = _channels(_bytes(image), spec)
    where = placement(pixels.shape[0], pixels.shape[1], spec)
    pixels = resize(pixels, *where.resized, spec.resample)
    pixels = _fit(pixels, where, spec.pad_value)
    axes, batched = _LAYOUTS[spec.layout]
    tensor = _numbers(pixels, spec).transpose(axes)
    return np.ascontiguousarray(tensor[np.newaxis] if batched else tensor), where


def _bytes(image: ImageArray) -> Bytes:
    if image.ndim == 2:
        image = image[:, :, np.newaxis]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise InputError(
            f"not an image: shape {list(image.shape)}",
            fix="give height × width × 1 or 3 channels (RGB)",
        )
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise InputError(f"an image of {image.dtype}", fix="give uint8 or uint16 pixels")
    return np.asarray(image, dtype=np.uint8)


def _channels(pixels: Bytes, spec: Preprocess) -> Bytes:
    colour = pixels.shape[2] == 3
    if spec.channels != "gray":
        if not colour:
            return np.repeat(pixels, 3, axis=2)
        return pixels[:, :, ::-1] if spec.channels == "bgr" else pixels
    if not colour:
        return pixels
    red, green, blue, bits = _PIL_GRAY if spec.resample.startswith("pil") else _CV_GRAY
    wide = pixels.astype(np.int32)
    total = wide[:, :, 0] * red + wide[:, :, 1] * green + wide[:, :, 2] * blue
    return ((total + (1 << (bits - 1))) >> bits).astype(np.uint8)[:, :, np.newaxis]


def _fit(pixels: Bytes, where: Placement, pad: int) -> Bytes:
    if where.resized == where.size:
        return pixels
    top, left = where.offset
    height, width = where.size
    if top < 0 or left < 0:
        return pixels[-top : -top + height, -left : -left + width]
    canvas = np.full((height, width, pixels.shape[2]), pad, dtype=np.uint8)
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas


def _numbers(pixels: Bytes, spec: Preprocess) -> Array:
    table = lookup_table(spec.scale, spec.mean, spec.std, spec.dtype)
    out = np.empty(pixels.shape, dtype=table.dtype)
    for channel in range(pixels.shape[2]):
        out[:, :, channel] = table[channel][pixels[:, :, channel]]
    return out


@lru_cache(maxsize=16)
def lookup_table(
    scale: float, mean: tuple[float, ...], std: tuple[float, ...], dtype: str
) -> npt.NDArray[np.generic]:
    """Channel × 256: the number that each byte becomes."""
    values = np.arange(256, dtype=np.float32) * np.float32(scale)
    rows = [(values - np.float32(m)) / np.float32(s) for m, s in zip(mean, std, strict=True)]
    table = np.stack(rows)
    if dtype == "uint8":
        return np.clip(np.rint(table), 0, 255).astype(np.uint8)
    return table.astype(np.float16 if dtype == "float16" else np.float32)
