"""The Python interface: arrays and paths are the same data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adcompile.anomaly import api
from adcompile.anomaly.images import read_mask, read_pixels
from adcompile.anomaly.samples import DataSet
from adcompile.errors import InputError, UsageError
from tests.anomaly.conftest import SIDE


def test_arrays_and_paths(twill: DataSet, twill_folder: Path, tmp_path: Path) -> None:
    """Fitted from paths, saved, evaluated from arrays, refitted on arrays."""
    fitted = api.fit("patchcore", twill_folder, image_size=SIDE, coreset_ratio=0.05)
    api.save(fitted, tmp_path / "m")
    both = api.evaluate(tmp_path / "m", twill_folder)["test"]
    labelled = [*twill.validation, *twill.test]
    good = [read_pixels(s.path) for s in labelled if not s.label]
    bad = [s for s in labelled if s.label]
    masks = [read_mask(s.mask) for s in bad if s.mask is not None]
    data = api.Images(good, [read_pixels(s.path) for s in bad], masks)
    found = api.evaluate(fitted, data)["test"]
    # The threshold is the score of one of these images, and its last bit may depend on its batch.
    image = 1 / len(bad) + 1e-6
    assert found["image"] == pytest.approx(both["image"], abs=image)
    for name in ("images", "anomalous", "auroc", "average_precision", "threshold", "best_f1"):
        assert found["image"][name] == pytest.approx(both["image"][name])
    assert found["pixel"] == pytest.approx(both["pixel"])
    train = [read_pixels(s.path) for s in twill.train]
    again = api.retrain(tmp_path / "m", api.Images(train, data.bad), coreset_ratio=0.03)
    assert again.bank is not None
    assert fitted.bank is not None
    assert len(again.bank) < len(fitted.bank)
    assert "pixel" not in again.metrics["test"]


def test_refusals(twill: DataSet) -> None:
    """Wrong names of hyper-parameters, and masks without images to go with."""
    with pytest.raises(UsageError, match="is called coreset_ratio"):
        api.fit("patchcore", twill, coreset_sampling_ratio=0.1)
    with pytest.raises(InputError, match="one mask per image"):
        api.fit(
            "patchcore",
            api.Images([np.zeros((64, 64, 3), np.uint8)], (), [np.ones((64, 64), bool)]),
        )
