"""Draw detections on a picture: masks as tinted areas, boxes, class names with scores."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from adcompile.detection.found import Found, Picture

Colour = tuple[int, int, int]
_GOLDEN = 0.618033988749895


def colour_of(label: int) -> Colour:
    """A colour per class: golden-ratio steps round the hue circle keep neighbours apart."""
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN) % 1.0, 0.75, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw(
    picture: Picture,
    found: Found,
    names: Mapping[int, str] | None = None,
    *,
    min_score: float = 0.5,
    mask_at: float = 0.5,
    opacity: float = 0.45,
) -> Picture:
    """A copy of ``picture`` (RGB [H,W,3]) with the detections of at least ``min_score``.

    ``names`` turns labels into words (a label without a name is shown as its number). The best
    detection is drawn last, on top. Works for no detections and for detectors without masks.
    """
    shown = found.above(min_score)
    order = np.argsort(shown.scores, kind="stable")
    tinted = _tint(picture, shown, order.tolist(), mask_at, opacity)
    image = Image.fromarray(tinted)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=max(10, min(picture.shape[:2]) // 40))
    for row in order.tolist():
        label = int(shown.labels[row])
        word = (names or {}).get(label, str(label))
        box = [float(value) for value in shown.boxes[row]]
        _box(pen, font, box, f"{word} {float(shown.scores[row]):.2f}", colour_of(label))
    return np.asarray(image)


def _tint(
    picture: Picture, found: Found, order: list[int], mask_at: float, opacity: float
) -> Picture:
    if found.masks is None or not order:
        return picture
    canvas = picture.astype(np.float32)
    for row in order:
        inside = found.masks[row] >= mask_at
        colour = np.asarray(colour_of(int(found.labels[row])), dtype=np.float32)
        canvas[inside] += opacity * (colour - canvas[inside])
    return np.asarray(np.rint(canvas), dtype=np.uint8)


def _box(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    box: list[float],
    text: str,
    colour: Colour,
) -> None:
    x1, y1, x2, y2 = box
    # Pillow refuses corners in the wrong order, which a degenerate box can have.
    pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=2)
    left, top, right, bottom = font.getbbox(text)
    height = bottom - top + 4
    # Above the box, or inside it where the picture ends.
    at = y1 - height if y1 >= height else y1
    pen.rectangle((x1, at, x1 + right - left + 4, at + height), fill=colour)
    ink = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
    pen.text((x1 + 2 - left, at + 2 - top), text, fill=ink, font=font)
