"""A detector of one input size, for images of any size.

The picture is brought to the size (stretched, or letterboxed: aspect kept, centred, padded), and
what comes out is brought back: boxes and masks in the pixels of the original picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from adcompile.detection.found import Floats, Found, Picture
from adcompile.errors import UsageError

Mode = Literal["stretch", "letterbox"]
Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Where a picture of size ``original`` lies inside the detector's input ``size``.

    The picture fills ``content`` pixels from ``corner`` (both height, width).
    """

    original: Size
    size: Size
    content: Size
    corner: Size

    @classmethod
    def of(cls, original: Size, size: Size, mode: Mode = "stretch") -> Fit:
        """The place of an ``original`` picture in ``size``. Raises UsageError for empty sizes."""
        if min(*original, *size) < 1:
            raise UsageError("sizes must be at least one pixel", where=f"{original} to {size}")
        if mode == "stretch":
            return cls(original, size, size, (0, 0))
        scale = min(size[0] / original[0], size[1] / original[1])
        content = (
            min(size[0], max(1, round(original[0] * scale))),
            min(size[1], max(1, round(original[1] * scale))),
        )
        corner = ((size[0] - content[0]) // 2, (size[1] - content[1]) // 2)
        return cls(original, size, content, corner)

    def apply(self, picture: Picture, pad: int = 114) -> Picture:
        """``picture`` [H,W,3] at the detector's size, padded with grey ``pad``."""
        if picture.shape[:2] != self.original:
            raise UsageError(
                "the picture has another size than the fit",
                where=f"{list(picture.shape[:2])} instead of {list(self.original)}",
            )
        height, width = self.content
        resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
        if self.content == self.size:
            return np.asarray(resized)
        canvas = np.full((*self.size, 3), pad, dtype=np.uint8)
        top, left = self.corner
        canvas[top : top + height, left : left + width] = np.asarray(resized)
        return canvas

    def restore(self, found: Found) -> Found:
        """Detections of the fitted picture, in the original's pixels; boxes end at its edges."""
        scale = (self.original[0] / self.content[0], self.original[1] / self.content[1])
        moved = (found.boxes - np.tile(self.corner[::-1], 2)) * np.tile(scale[::-1], 2)
        limit = np.tile(self.original[::-1], 2)
        boxes = np.clip(moved, 0, limit).astype(np.float32)
        masks = None if found.masks is None else self._restore_masks(found.masks)
        return Found(boxes, found.labels, found.scores, masks)

    def _restore_masks(self, masks: Floats) -> Floats:
        if masks.shape[1:] != self.size:
            raise UsageError(
                "masks do not have the detector's input size",
                where=f"{list(masks.shape[1:])} instead of {list(self.size)}",
            )
        height, width = self.original
        if self.content == self.original:
            top, left = self.corner
            return masks[:, top : top + height, left : left + width].copy()
        top, left = self.corner
        inside = masks[:, top : top + self.content[0], left : left + self.content[1]]
        result = np.empty((len(masks), height, width), dtype=np.float32)
        for row, mask in enumerate(inside):
            # Cropped first, so that padding never bleeds into the picture's edge.
            image = Image.fromarray(np.ascontiguousarray(mask))
            result[row] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        return result


def to_tensor(picture: Picture) -> Floats:
    """RGB [H,W,3] uint8 as [3,H,W] float 0..1: the input of torchvision's detectors."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


@dataclass(frozen=True, slots=True)
class FixedSize:
    """``run`` takes [3,H,W] floats of ``size`` and gives named outputs; this takes any picture."""

    run: Callable[[Floats], Mapping[str, npt.ArrayLike]]
    size: Size
    mode: Mode = "stretch"
    pad: int = 114

    def __call__(self, picture: Picture) -> Found:
        """Detections in the pixels of ``picture`` (RGB [H,W,3])."""
        height, width = picture.shape[:2]
        fit = Fit.of((height, width), self.size, self.mode)
        return fit.restore(Found.of(self.run(to_tensor(fit.apply(picture, self.pad)))))
