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


def export_detector(folder: Path) -> Exported:
    """The training example's architecture at 64x64. The examples import each other by bare name."""
    pictures = photographs()  # makes the examples importable
    import torch
    from export_maskrcnn import export, load_image
    from random_detector import settle
    from train_maskrcnn import build

    size = (64, 64)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = build(classes=7, size=64, channels=16).eval()
    images = {path.name: load_image(path, size) for path in pictures}
    settle(model, list(images.values())[:6], background=5.0)
    path = folder / "detector.onnx"
    export(model, next(iter(images.values())), path)
    return Exported(model, path, size, images)
