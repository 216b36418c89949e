"""A small Mask R-CNN of torchvision, exported by the example scripts."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torchvision.models.detection.mask_rcnn import MaskRCNN

EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True)
class Exported:
    """A small detector with settled random weights, and its ONNX file."""

    model: MaskRCNN = field(repr=False)
    path: Path
    size: tuple[int, int]
    images: dict[str, Tensor] = field(repr=False)


def photographs() -> list[Path]:
    """Real photographs that come inside Python packages."""
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    import photos

    return photos.photographs()


def export_detector(
    folder: Path, size: int = 64, channels: int = 16, background: float = 5.0
) -> Exported:
    """The training example's architecture; larger *background*: fewer boxes. The examples import each
    other by bare name."""
    pictures = photographs()  # makes the examples importable
    import torch
    from export_maskrcnn import export, load_image
    from random_detector import settle
    from train_maskrcnn import build

    square = (size, size)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = build(classes=7, size=size, channels=channels).eval()
    images = {path.name: load_image(path, square) for path in pictures}
    settle(model, list(images.values())[:6], background=background)
    path = folder / "detector.onnx"
    export(model, next(iter(images.values())), path)
    return Exported(model, path, square, images)
