"""What a detector says about one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adcompile.errors import FormatError
from adcompile.runtime.images import ImageArray

Floats = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]
"""A decoded image: RGB, 8 bit, [H,W,3]."""


def as_picture(pixels: ImageArray) -> Picture:
    """A decoded image of 1 or 3 channels, 8 or 16 bit, as RGB 8 bit (16 bit: the high byte)."""
    bytes_ = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
    return np.asarray(np.broadcast_to(bytes_, (*pixels.shape[:2], 3)), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Found:
    """N detections: ``boxes`` [N,4] as x1 y1 x2 y2 in pixels, ``labels`` [N], ``scores`` [N],
    ``masks`` [N,H,W] probabilities (None: the detector has no masks)."""

    boxes: Floats
    labels: npt.NDArray[np.int64]
    scores: Floats
    masks: Floats | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of(cls, outputs: Mapping[str, npt.ArrayLike]) -> Found:
        """From named outputs as torchvision gives them (masks [N,1,H,W] or [N,H,W]).

        Raises FormatError when an output is missing or the counts disagree.
        """
        missing = [name for name in ("boxes", "labels", "scores") if name not in outputs]
        if missing:
            raise FormatError(
                f"the detector gives no {', '.join(missing)}",
                why=f"its outputs are {', '.join(outputs) or 'none'}",
                fix="name the outputs boxes, labels, scores and, if there are any, masks",
            )
        boxes = np.asarray(outputs["boxes"], dtype=np.float32)
        labels = np.asarray(outputs["labels"]).astype(np.int64)
        scores = np.asarray(outputs["scores"], dtype=np.float32)
        masks = _masks(outputs["masks"]) if "masks" in outputs else None
        shapes = {"boxes": boxes.shape, "labels": labels.shape, "scores": scores.shape}
        rows = {len(value) if value.ndim else -1 for value in (boxes, labels, scores)}
        if masks is not None:
            shapes["masks"] = masks.shape
            rows.add(len(masks))
        if len(rows) != 1 or boxes.shape[1:] != (4,) or labels.ndim != 1 or scores.ndim != 1:
            raise FormatError(
                "the detector's outputs do not fit together",
                why=", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()),
                fix="expected boxes [N,4], labels [N], scores [N], masks [N,1,H,W]",
            )
        return cls(boxes, labels, scores, masks)

    def above(self, score: float) -> Found:
        """Only the detections that score at least ``score``."""
        keep = self.scores >= score
        masks = None if self.masks is None else self.masks[keep]
        return Found(self.boxes[keep], self.labels[keep], self.scores[keep], masks)


def _masks(value: npt.ArrayLike) -> Floats:
    masks = np.asarray(value, dtype=np.float32)
    if masks.ndim == 4 and masks.shape[1] == 1:
        masks = masks[:, 0]
    if masks.ndim != 3:
        raise FormatError(
            f"masks have shape {list(masks.shape)}", fix="expected [N,1,H,W] or [N,H,W]"
        )
    return masks
