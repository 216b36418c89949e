"""Tiles with overlap: the assembled network equals averaging the tiles' features in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from adcompile.anomaly.backbone import FeatureRunner, load_backbone
from adcompile.anomaly.config import make_config
from adcompile.anomaly.fitting import fit
from adcompile.anomaly.samples import DataSet
from adcompile.anomaly.tiling import tile_backbone, tile_starts
from adcompile.errors import UsageError
from tests.anomaly.conftest import tiny_backbone

WHOLE = 96


@pytest.mark.parametrize("stride", [32, 24, 64])
@pytest.mark.parametrize("batch", [1, "N"])
def test_features_are_the_mean_of_the_tiles(stride: int, batch: int | str) -> None:
    """Each cell is the mean over the tiles that cover it, for both layers."""
    network = load_backbone(tiny_backbone(batch=batch))
    whole = tile_backbone(network, WHOLE, stride)
    assert whole.grids == ((24, 24), (12, 12))
    images = np.random.default_rng(0).standard_normal((2, 3, WHOLE, WHOLE)).astype(np.float32)
    found = FeatureRunner(whole)(images)
    run = FeatureRunner(network)
    for index, step in enumerate((4, 8)):
        total = np.zeros_like(found[index])
        count = np.zeros(total.shape[2:])
        for top in tile_starts(WHOLE, 64, stride, 8):
            for left in tile_starts(WHOLE, 64, stride, 8):
                part = run(images[:, :, top : top + 64, left : left + 64])[index]
                rows = slice(top // step, (top + 64) // step)
                columns = slice(left // step, (left + 64) // step)
                total[:, :, rows, columns] += part
                count[rows, columns] += 1
        assert np.allclose(found[index], total / count, atol=1e-5)


def test_places() -> None:
    """The last tile ends at the border; gaps, tiles above the image and broken cells are refused."""
    assert tile_starts(96, 64, 32, 8) == [0, 32]
    assert tile_starts(200, 64, 48, 8) == [0, 48, 96, 136]
    assert tile_starts(64, 64, 64, 8) == [0]
    for side, tile, stride, what in (
        (64, 96, 32, "larger than the image"),
        (96, 64, 65, "stride must be"),
        (96, 64, 20, "whole feature cells"),
        (99, 64, 32, "whole feature cells"),
    ):
        with pytest.raises(UsageError, match=what):
            tile_starts(side, tile, stride, 8)


def test_a_tiled_detector_is_fitted(twill: DataSet) -> None:
    """PatchCore with tiles has one graph for the whole image, and finds the easy defects."""
    values = {"image_size": 96, "tile": 64, "coreset_ratio": 0.05}
    fitted = fit(make_config("patchcore", values), twill)
    assert fitted.contract.inputs["image"].size == (96, 96)
    assert float(fitted.metrics["test"]["image"]["auroc"] or 0) > 0.8
