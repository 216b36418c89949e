"""Export anomalib detectors to ONNX, as its users do: random weights, no download, seconds.

    python examples/export_anomalib.py patchcore padim efficientad -o exported
    adcompile build exported/patchcore.onnx --target drpai:v2h -o out

The graphs are what ``anomalib``'s own export writes: pre-processing, network, bank or statistics as
constants, score, map, normalisation and thresholds, four outputs. ``--legacy`` uses the exporter
of anomalib 2.0 (TorchScript), whose graphs are spelt differently. The bank and the statistics are
fitted on random textures; ``--narrow`` makes the networks small, for tests.
"""

# torch's and anomalib's own annotations are partial
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
torchvision_cpu = importlib.import_module("torchvision_cpu")

OUTPUTS = ["pred_score", "pred_label", "anomaly_map", "pred_mask"]


def textures(count: int, side: int) -> torch.Tensor:
    """Smooth random pictures in 0…1, [count, 3, side, side]."""
    coarse = torch.rand(count, 3, side // 8, side // 8)
    noise = 0.1 * torch.rand(count, 3, side, side)
    grown = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return 0.9 * grown + noise


def calibrated(model: Any, images: torch.Tensor) -> Any:
    """Post-processing with thresholds and ranges of the raw scores of *images*."""
    model.eval()
    with torch.no_grad():
        found = model.model(model.pre_processor(images))
    scores, maps = found.pred_score, found.anomaly_map
    post = model.post_processor
    post._image_threshold = scores.max().detach().clone()
    post._pixel_threshold = maps.max().detach().clone()
    spread = 10 * scores.max().abs()  # wide, so that other pictures do not leave the range
    post.image_min, post.image_max = scores.min() - spread, scores.max() + spread
    post.pixel_min, post.pixel_max = maps.min() - spread, maps.max() + spread
    return model


def collect(model: Any, images: torch.Tensor) -> None:
    """Run the images through a model that gathers embeddings; batch statistics stay as they are."""
    model.model.train()
    model.model.feature_extractor.eval()
    with torch.no_grad():
        model.model(model.pre_processor(images))


def patchcore(side: int, narrow: bool) -> Any:
    """PatchCore on ResNet18 with random weights."""
    from anomalib.models import Patchcore

    del narrow
    chosen = Patchcore.configure_pre_processor(image_size=(side, side))
    model = Patchcore(
        backbone="resnet18",
        layers=["layer1", "layer2"],
        pre_trained=False,
        pre_processor=chosen,
    )
    collect(model, textures(12, side))
    rows = torch.vstack(model.model.embedding_store)
    model.model.memory_bank = rows[torch.randperm(len(rows))[:200]].contiguous()
    model.model.embedding_store.clear()
    return model


def padim(side: int, narrow: bool) -> Any:
    """PaDiM on ResNet18 with random weights."""
    from anomalib.models import Padim

    del narrow
    chosen = Padim.configure_pre_processor(image_size=(side, side))
    model = Padim(
        backbone="resnet18",
        layers=["layer1", "layer2"],
        pre_trained=False,
        n_features=24,
        pre_processor=chosen,
    )
    collect(model, textures(40, side))
    model.model.fit()
    return model


def efficientad(side: int, narrow: bool) -> Any:
    """EfficientAD small with random weights; its autoencoder needs 256 pixels."""
    from anomalib.models import EfficientAd

    side = max(side, 256)
    channels = 16 if narrow else 384
    chosen = EfficientAd.configure_pre_processor(image_size=(side, side))
    model = EfficientAd(teacher_out_channels=channels, model_size="small", pre_processor=chosen)
    inner = model.model
    if narrow:
        for network, last in ((inner.teacher, channels), (inner.student, 2 * channels)):
            network.conv1 = torch.nn.Conv2d(3, 8, 4)
            network.conv2 = torch.nn.Conv2d(8, 8, 4)
            network.conv3 = torch.nn.Conv2d(8, 8, 3)
            network.conv4 = torch.nn.Conv2d(8, last, 4)
    with torch.no_grad():
        inner.mean_std["mean"].copy_(0.01 * torch.randn_like(inner.mean_std["mean"]))
        inner.mean_std["std"].fill_(0.5)
        values = {"qa_st": 0.01, "qb_st": 0.04, "qa_ae": 0.005, "qb_ae": 0.03}
        for name, value in values.items():
            inner.quantiles[name].copy_(torch.tensor(value))
    return model


MODELS: dict[str, Callable[[int, bool], Any]] = {
    "patchcore": patchcore,
    "padim": padim,
    "efficientad": efficientad,
}


def export(name: str, folder: Path, side: int, *, legacy: bool, narrow: bool) -> Path:
    """One model as ``folder/name.onnx``."""
    torch.manual_seed(0)
    model = MODELS[name](side, narrow)
    side = max(side, 256) if name == "efficientad" else side
    calibrated(model, textures(4, side))
    if not legacy:
        made = model.to_onnx(folder / name)
        return Path(made)
    path = folder / f"{name}.onnx"
    torch.onnx.export(
        model,
        (textures(1, side),),
        str(path),
        dynamo=False,
        opset_version=14,
        input_names=["input"],
        output_names=OUTPUTS,
        dynamic_axes={"input": {0: "batch"}},
    )
    return path


def main() -> int:
    """Export what was asked for; one path per line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", choices=sorted(MODELS))
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--legacy", action="store_true")
    parser.add_argument("--narrow", action="store_true")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torchvision_cpu.install()
    given.output.mkdir(parents=True, exist_ok=True)
    for name in given.models:
        path = export(name, given.output, given.size, legacy=given.legacy, narrow=given.narrow)
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
