"""Export torchvision's whole Mask R-CNN (ResNet50-FPN v2), as a user would, to one ONNX file.

    python examples/export_maskrcnn.py --size 320x320 --weights coco -o maskrcnn.onnx

Input ``image``: 3xHxW float, RGB, 0..1 (the graph normalises by itself). Outputs ``boxes``
[N,4] x1 y1 x2 y2 in pixels, ``labels`` [N], ``scores`` [N], ``masks`` [N,1,H,W] probabilities.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import photos
import torch
import torchvision_cpu
from PIL import Image
from random_detector import settle
from torch import Tensor

if TYPE_CHECKING:
    from torchvision.models.detection.mask_rcnn import MaskRCNN

OUTPUTS = ("boxes", "labels", "scores", "masks")


def parse_size(text: str) -> tuple[int, int]:
    """``320x480`` as (height, width)."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) > 0 and int(width) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 320x320")
    return int(height), int(width)


def load_image(path: Path, size: tuple[int, int]) -> Tensor:
    """The picture at ``path`` stretched to ``size`` (height, width): 3xHxW float, RGB, 0..1."""
    with Image.open(path) as picture:
        resized = picture.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1).float() / 255


def build(size: tuple[int, int], weights: str, seed: int) -> MaskRCNN:
    """The detector for images of ``size``.

    ``weights``: ``coco`` (downloaded by torchvision), ``random`` (scaled so that photographs give
    detections), ``raw`` (torchvision's own random start: all scores alike) or a state-dict file.
    """
    torchvision_cpu.install()
    from torchvision.models.detection import (
        MaskRCNN_ResNet50_FPN_V2_Weights,
        maskrcnn_resnet50_fpn_v2,
    )

    torch.manual_seed(seed)
    model = maskrcnn_resnet50_fpn_v2(
        weights=MaskRCNN_ResNet50_FPN_V2_Weights.DEFAULT if weights == "coco" else None,
        weights_backbone=None,
        # The model's own resize then leaves an image of this size as it is.
        min_size=min(size),
        max_size=max(size),
    )
    if weights == "random":
        settle(model, [load_image(path, size) for path in photos.photographs()[:8]])
    elif weights not in ("coco", "raw"):
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model.eval()


def export(model: MaskRCNN, example: Tensor, path: Path) -> None:
    """Trace ``model`` on one image (3xHxW) and write it to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # The tracer warns of every size it bakes in, which is what a fixed size means.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            ([example],),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=list(OUTPUTS),
        )


def main() -> int:
    """Command line of the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=parse_size, default=(320, 320), help="HEIGHTxWIDTH")
    parser.add_argument(
        "--weights", default="random", help="coco, random, raw or a state-dict file"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    parser.add_argument("-o", "--output", type=Path, default=Path("maskrcnn.onnx"))
    args = parser.parse_args()
    size: tuple[int, int] = args.size
    output: Path = args.output
    model = build(size, args.weights, args.seed)
    paths = photos.photographs()
    for path in paths[:6]:
        with torch.no_grad():
            found = model([load_image(path, size)])[0]
        print(f"{path.name}: {len(found['scores'])} detections")
    example = load_image(paths[0], size) if paths else torch.rand(3, *size)
    print("exporting, about 90 seconds")
    export(model, example, output)
    print(f"wrote {output}: {output.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
