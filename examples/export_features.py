"""Export a torchvision backbone cut at layer2 and layer3, the features anomaly detectors use.

    python examples/export_features.py --backbone resnet18 -o resnet18_features.onnx

Input ``input`` 1x3x224x224 (already normalised), outputs ``layer2`` 1xCx28x28 and ``layer3``
1x2Cx14x14. ``--weights imagenet`` downloads torchvision's weights; ``random`` measures the
batch-norm statistics on photographs so that activations have a natural range.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, cast

import photos
import torch
import torchvision_cpu
from export_maskrcnn import load_image
from random_detector import measure
from torch import Tensor

if TYPE_CHECKING:
    from torchvision.models import ResNet

BACKBONES = ("resnet18", "resnet50", "wide_resnet50_2")
LAYERS = ("layer2", "layer3")
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
BRANCH = 0.25  # scale of a residual branch's last normalisation, with random weights


class Features(torch.nn.Module):
    """The stem and the first three stages of a ResNet; gives layer2 and layer3."""

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(
            resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool, resnet.layer1
        )
        self.layer2 = resnet.layer2
        self.layer3 = resnet.layer3

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Feature maps [N,C,H/8,W/8] and [N,2C,H/16,W/16] of ``image`` [N,3,H,W]."""
        middle = cast(Tensor, self.layer2(self.stem(image)))
        return middle, cast(Tensor, self.layer3(middle))


def damp_branches(resnet: ResNet) -> None:
    """Make every residual branch small against its trunk, as it is in a trained network.

    With branches as strong as the trunk a random network is chaotic: any rounding error grows from
    block to block, and a comparison of number formats says nothing.
    """
    for block in resnet.modules():
        last = getattr(block, "bn3", getattr(block, "bn2", None))
        if isinstance(last, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(last.weight, BRANCH)


def normalise(image: Tensor) -> Tensor:
    """ImageNet mean and deviation applied to 3xHxW in 0..1; adds the batch axis."""
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return ((image - mean) / std)[None]


def build(backbone: str, weights: str, size: int, seed: int) -> Features:
    """The cut network; ``weights`` is ``imagenet``, ``random`` or a state-dict file."""
    torchvision_cpu.install()
    from torchvision.models import get_model

    torch.manual_seed(seed)
    resnet = get_model(backbone, weights="IMAGENET1K_V1" if weights == "imagenet" else None)
    if weights not in ("imagenet", "random"):
        resnet.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    features = Features(cast("ResNet", resnet)).eval()
    if weights == "random":
        damp_branches(cast("ResNet", resnet))
    pictures = [normalise(load_image(path, (size, size))) for path in photos.photographs()]
    if weights == "random" and pictures:
        with torch.no_grad():
            measure(features, [torch.cat(pictures)])
    return features


def export(features: Features, size: int, path: Path) -> None:
    """Write ``features`` for one ``size`` x ``size`` image to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # The TorchScript exporter announces its own deprecation.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            features,
            (torch.zeros(1, 3, size, size),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            output_names=list(LAYERS),
        )


def main() -> int:
    """Command line of the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet18")
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--weights", default="random", help="imagenet, random or a file")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    parser.add_argument("-o", "--output", type=Path, default=Path("features.onnx"))
    args = parser.parse_args()
    size: int = args.size
    output: Path = args.output
    export(build(args.backbone, args.weights, size, args.seed), size, output)
    print(f"wrote {output}: {output.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
