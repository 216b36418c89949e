"""Methods whose networks are trained here, found by name so that torch is imported only then."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

from adcompile.anomaly.config import TrainedConfig
from adcompile.anomaly.parts import Parts, Session
from adcompile.anomaly.presets import Preset
from adcompile.anomaly.samples import DataSet
from adcompile.errors import ToolMissing, UsageError

_MODULES = {
    "efficientad": "adcompile.anomaly.efficientad",
    "vae": "adcompile.anomaly.vae",
}
Train = Callable[[TrainedConfig, DataSet, Preset, Session], Parts]


def train(config: TrainedConfig, data: DataSet, chosen: Preset, session: Session) -> Parts:
    """Train the network of ``config.method``; ToolMissing without torch."""
    name = _MODULES.get(config.method)
    if name is None:
        raise UsageError(f"nothing trains {config.method!r}")
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise ToolMissing(
            f"training {config.method} needs torch",
            why=str(error),
            fix='pip install "adcompile[train]"',
        ) from error
    found = importlib.import_module(name).train
    return cast("Train", found)(config, data, chosen, session)
