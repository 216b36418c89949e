"""Fit, refit and evaluate from Python: paths or arrays in, a fitted model out.

from adcompile.anomaly import api

fitted = api.fit("patchcore", "data/twill", coreset_ratio=0.01)
fitted = api.fit("padim", api.Images(good, bad, masks))          # lists of arrays H×W×3
api.save(fitted, "model")
api.evaluate("model", "data/twill")["test"]["image"]["auroc"]
api.retrain("model", "data/new")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from adcompile.anomaly import fitting
from adcompile.anomaly.backbone import load_backbone
from adcompile.anomaly.config import FitConfig, make_config
from adcompile.anomaly.detector import open_detector, run_samples
from adcompile.anomaly.layouts import divide_normal
from adcompile.anomaly.model_folder import Fitted, Metrics, load_fitted, save_fitted
from adcompile.anomaly.parts import Watch
from adcompile.anomaly.samples import DataSet, Sample, SplitOptions, from_arrays
from adcompile.anomaly.sources import read_data
from adcompile.errors import UsageError
from adcompile.runtime.images import ImageArray


@dataclass(frozen=True)
class Images:
    """Decoded images, H×W×C RGB of 8 or 16 bits; ``masks`` [H, W] go with ``bad``, in order."""

    good: Sequence[ImageArray]
    bad: Sequence[ImageArray] = ()
    masks: Sequence[npt.NDArray[np.bool_]] = ()

    def samples(self) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
        """Good and bad ones."""
        return from_arrays(self.good), from_arrays(self.bad, 1, self.masks)


Data: TypeAlias = str | Path | DataSet | Images
"""A folder, a list of paths, a YAML file of lists; a data set; or images in memory."""


def fit(method: str, data: Data, *, watch: Watch | None = None, **values: object) -> Fitted:
    """Train a detector; *values* are hyper-parameters by name."""
    config = make_config(method, values)
    return fitting.fit(config, _for_training(data, config), watch=watch)


def retrain(
    model: str | Path | Fitted, data: Data, *, watch: Watch | None = None, **changes: object
) -> Fitted:
    """Fit again with the saved configuration, network and weights; *changes* win."""
    old = model if isinstance(model, Fitted) else load_fitted(Path(model))
    config = make_config(old.config.method, old.config.model_dump() | changes)
    network = None if old.backbone is None else load_backbone(old.backbone)
    found = _for_training(data, config)
    return fitting.fit(config, found, backbone=network, start=old.weights, watch=watch)


def evaluate(model: str | Path | Fitted, data: Data) -> Metrics:
    """Image and pixel metrics at the contract's threshold on every labelled image, as ``test``."""
    detector = open_detector(model.model if isinstance(model, Fitted) else Path(model))
    score = detector.contract.score
    if score is None or score.threshold is None:
        raise UsageError("the model has no threshold", where=str(model))
    if isinstance(data, Images):
        samples = [sample for group in data.samples() for sample in group]
    else:
        found = data if isinstance(data, DataSet) else _read(data, SplitOptions(validation="same"))
        samples = list(found.test or found.validation)
    outcome = run_samples(detector, samples, detector.preprocess)
    return {"test": fitting.measured(outcome, score)}


def save(fitted: Fitted, folder: str | Path, *, replace: bool = False) -> None:
    """Write the model's folder, whole or not at all."""
    save_fitted(fitted, Path(folder), replace=replace)


def _for_training(data: Data, config: FitConfig) -> DataSet:
    split = SplitOptions(config.test_ratio, config.validation, config.seed)
    if isinstance(data, DataSet):
        return data
    if isinstance(data, Images):
        return divide_normal("arrays", "arrays", *data.samples(), split)
    return _read(data, split, config)


def _read(data: str | Path, split: SplitOptions, config: FitConfig | None = None) -> DataSet:
    path = Path(data)
    if config is None:
        return read_data(path, split)
    return read_data(path, split, layout=config.layout, category=config.category_in(path))
