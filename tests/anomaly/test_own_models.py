"""All four of our detectors through the build, for every target family: the numbers stay."""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from adcompile.anomaly import efficientad, padim, patchcore, vae
from adcompile.anomaly.backbone import load_backbone
from adcompile.anomaly.bundle_detector import open_bundle_detector
from adcompile.anomaly.detector import open_detector
from adcompile.anomaly.efficientad_networks import Networks
from adcompile.anomaly.filters import filter_network
from adcompile.anomaly.images import batches
from adcompile.anomaly.padim import Gaussian
from adcompile.anomaly.presets import preset
from adcompile.anomaly.samples import DataSet
from adcompile.anomaly.scoring import Quantiles
from adcompile.anomaly.whiten import factor_of
from adcompile.compiler import BuildOptions, compile
from adcompile.ir import model_io
from tests.anomaly.conftest import SIDE

NUMBERS = {"threshold": 1.0, "minimum": 0.0, "maximum": 50.0, "normalisation": "min_max"}


def build_model(method: str) -> ir.Model:
    """An untrained detector of ours; what is learned does not matter here."""
    torch.manual_seed(0)
    chosen = preset(method, side=SIDE)
    score = chosen.score.model_copy(update=NUMBERS)
    rng = np.random.default_rng(0)
    backbone = load_backbone(filter_network(SIDE), [], SIDE)
    channels = sum(backbone.channels)
    if method == "patchcore":
        rows = rng.random((40, channels), dtype=np.float32)
        return patchcore.build_model(
            backbone, rows, score, chosen.preprocess, chosen.deep_upsampling
        )
    if method == "padim":
        patches = backbone.grids[0][0] * backbone.grids[0][1]
        eyes = np.broadcast_to(np.eye(4, dtype=np.float32), (patches, 4, 4)).copy()
        index = np.array([0, channels - 1, 7, 9])
        mean = rng.random((4, patches), dtype=np.float32)
        stats = Gaussian(mean, eyes, index, factor_of(eyes))
        return padim.build_model(backbone, stats, score, chosen.preprocess)
    if method == "efficientad":
        networks = Networks("small", SIDE, 8, 0.05).eval()
        quantiles = Quantiles(0.0, 1.0, 0.0, 1.0)
        return efficientad.build_model(networks, quantiles, score, chosen.preprocess)
    return vae.build_model(vae.Vae(SIDE, 8).eval(), score, chosen.preprocess)


@pytest.mark.parametrize("method", ["patchcore", "padim", "efficientad", "vae"])
def test_every_target_gives_the_same_numbers(method: str, twill: DataSet, tmp_path: Path) -> None:
    """Score within 1e-4 and map within 1e-3 of the graph; the network is on the device."""
    path = tmp_path / "model.onnx"
    model_io.save_model(build_model(method), path)
    reference = open_detector(path)
    images = np.concatenate(list(batches(twill.test[:2], reference.preprocess)))
    wanted = reference(images)
    options = BuildOptions(precision="fp32", golden_count=1, host_code=False)
    for target in ("trt:orin-nx", "npu", "drpai"):
        done = compile(path, target, tmp_path / target[:3], options)
        assert done.ok, (target, done.notes)
        assert not any("lint" in note for note in done.notes), done.notes
        assert any(p.placement == "device" and p.macs for p in done.manifest.parts)
        with open_bundle_detector(tmp_path / target[:3]) as detector:
            got = detector(images)
        np.testing.assert_allclose(got[0], wanted[0], rtol=1e-4)
        np.testing.assert_allclose(got[1], wanted[1], rtol=1e-3, atol=1e-4)
