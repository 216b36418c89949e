"""A detector of one input size, for images of any size.

Pre-processing is the contract's (``adcompile.runtime.preprocess``): stretched, or letterboxed
(aspect kept, centred, padded). What comes out is brought back: boxes and masks in the pixels of
the original picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from adcompile.contract import Preprocess
from adcompile.detection.found import Floats, Found, Picture
from adcompile.errors import InputError
from adcompile.runtime.preprocess import Placement, place

Run = Callable[[Floats], Mapping[str, npt.ArrayLike]]


def whole_picture(
    size: tuple[int, int], resize: Literal["stretch", "letterbox"] = "stretch"
) -> Preprocess:
    """What torchvision's detectors take: RGB, [3,H,W] of ``size`` (height, width), 0..1."""
    return Preprocess(size=size, resize=resize, layout="chw")


@dataclass(frozen=True, slots=True)
class FixedSize:
    """``run`` takes the tensor that ``spec`` describes and gives named outputs (boxes, labels,
    scores, masks) in the tensor's pixels; the object takes any picture.

    Detections below ``min_score`` are dropped before their masks grow to the picture's size: a
    hundred float masks of a 12-megapixel picture take 5 GB.
    """

    run: Run
    spec: Preprocess
    min_score: float = 0.0

    def __call__(self, picture: Picture) -> Found:
        """Detections in the pixels of ``picture`` (RGB [H,W,3])."""
        tensor, where = place(picture, self.spec)
        floats = np.asarray(tensor, dtype=np.float32)
        return restore(Found.of(self.run(floats)).above(self.min_score), where)


def restore(found: Found, where: Placement) -> Found:
    """Detections in tensor pixels, moved to the original picture; boxes end at its edges.

    Raises InputError when masks do not have the size of the tensor.
    """
    boxes = where.boxes_to_image(found.boxes)
    masks = None if found.masks is None else _restore_masks(found.masks, where)
    return Found(boxes, found.labels, found.scores, masks)


def _restore_masks(masks: Floats, where: Placement) -> Floats:
    if masks.shape[1:] != where.size:
        raise InputError(
            "masks do not have the size of the detector's input",
            why=f"masks {list(masks.shape[1:])}, input {list(where.size)}",
            fix="give masks as the whole network does: [N,1,H,W], pasted into the image",
        )
    whole = _without_padding(masks, where)
    if where.resized == where.original:
        return whole
    height, width = where.original
    result = np.empty((len(masks), height, width), dtype=np.float32)
    for row, mask in enumerate(whole):
        picture = Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR)
        result[row] = np.asarray(picture)
    return result


def _without_padding(masks: Floats, where: Placement) -> Floats:
    """``masks`` over the resized picture: padding cut off first, so that it never bleeds into the
    picture's edge; zero where a crop left nothing to see."""
    result = np.zeros((len(masks), *where.resized), dtype=np.float32)
    seen, kept = zip(*(_overlap(where, axis) for axis in (0, 1)), strict=True)
    result[:, kept[0], kept[1]] = masks[:, seen[0], seen[1]]
    return result


def _overlap(where: Placement, axis: int) -> tuple[slice[int, int, None], slice[int, int, None]]:
    """Along one axis: the pixels of the tensor that show the picture, and which these are."""
    offset = where.offset[axis]
    start = max(offset, 0)
    stop = min(offset + where.resized[axis], where.size[axis])
    return slice(start, stop), slice(start - offset, stop - offset)
