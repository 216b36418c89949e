"""Pictures of one image: heat map, overlay, predicted mask, segmentation, combined figure.

All take the map at the size of the photograph. Colours are those of ``adcompile run``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from adcompile.runtime.heatmap import OPACITY, Picture, colours, overlay

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

OPENING = 4
"""Radius in pixels of the disk that removes specks from a predicted mask."""
TRUE, PREDICTED = (46, 204, 113), (255, 45, 85)
BACKGROUND, INK = (255, 255, 255), (29, 39, 51)


def heat_picture(unit: Floats) -> Picture:
    """The map alone, in colours."""
    return colours(unit.astype(np.float64))


def gray_picture(unit: Floats) -> Picture:
    """The map alone, in grey: H×W×3."""
    return np.repeat(np.rint(unit * 255).astype(np.uint8)[..., np.newaxis], 3, axis=2)


def overlay_picture(photo: Picture, unit: Floats) -> Picture:
    """The photograph tinted by the map."""
    return overlay(photo, unit, 0.0, 1.0, OPACITY)


def predicted_mask(heat: Floats, threshold: float) -> Mask:
    """Pixels at or above the threshold, opened with a disk: what no disk fits into disappears."""
    return opened(heat >= np.float32(threshold), OPENING)


def opened(mask: Mask, radius: int) -> Mask:
    """Morphological opening with a disk of *radius* pixels; outside the picture counts as set."""
    if radius < 1 or not mask.any():
        return mask
    eroded = ~_dilated(~mask, radius)
    return _dilated(eroded, radius)


def _dilated(mask: Mask, radius: int) -> Mask:
    """Union of the mask shifted by every offset in the disk."""
    height = mask.shape[0]
    out = np.zeros_like(mask)
    for dy in range(-radius, radius + 1):
        reach = int(np.sqrt(radius * radius - dy * dy))
        # a row of the disk: any set pixel within `reach` columns, by running counts
        counts = np.cumsum(np.pad(mask, ((0, 0), (reach + 1, reach))), axis=1, dtype=np.int32)
        spread = counts[:, 2 * reach + 1 :] > counts[:, : -2 * reach - 1]
        out[max(0, dy) : min(height, height + dy)] |= spread[
            max(0, -dy) : min(height, height - dy)
        ]
    return out


def mask_picture(mask: Mask) -> Picture:
    """White where set, black elsewhere: H×W×3."""
    return np.repeat((mask * np.uint8(255))[..., np.newaxis], 3, axis=2).astype(np.uint8)


def outline(mask: Mask, width: int = 1) -> Mask:
    """The border pixels inside a mask, *width* pixels thick; the picture's edge is a border."""
    inner = slice(width, -width)
    return mask & _dilated(~np.pad(mask, width), width)[inner, inner]


def segmentation_picture(photo: Picture, predicted: Mask, truth: Mask | None = None) -> Picture:
    """The photograph with the predicted region outlined in red and the true one in green."""
    width = max(1, round(min(photo.shape[:2]) / 160))
    drawn = photo.copy()
    if truth is not None:
        drawn[outline(truth, width)] = TRUE
    drawn[outline(predicted, width)] = PREDICTED
    return drawn


def combined_picture(panels: Sequence[tuple[str, Picture]], title: str) -> Picture:
    """Pictures side by side with titles, under one heading."""
    side, gap, head, label = 256, 12, 34, 22
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    size = (gap + columns * (side + gap), head + rows * (side + label + gap))
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, 9), title, fill=INK, font=font(16))
    for index, (name, picture) in enumerate(panels):
        left = gap + index % columns * (side + gap)
        top = head + index // columns * (side + label + gap)
        draw.text((left, top + 2), name, fill=INK, font=font(13))
        shown = fitted(picture, side)
        place = (left + (side - shown.width) // 2, top + label + (side - shown.height) // 2)
        sheet.paste(shown, place)
    return np.asarray(sheet, dtype=np.uint8)


def fitted(picture: Picture, side: int) -> Image.Image:
    """The picture scaled to fit a square."""
    image = Image.fromarray(picture)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BILINEAR
    return image.resize(size, method)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font: the same on every machine."""
    return ImageFont.load_default(size)
