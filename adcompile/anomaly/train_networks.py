"""Methods whose networks are trained here, found by name so that torch is imported only then.

Their networks move to the device for the training; what comes back is on the CPU.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import replace
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
    """Train the network of ``config.method`` on ``config.device``.

    Raises ToolMissing without torch, InputError without the device.
    """
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
    from adcompile.torch_device import choose_device, describe, reproducible

    method = cast("Train", importlib.import_module(name).train)
    device = choose_device(config.device)
    start = time.monotonic()
    with reproducible(device):
        parts = method(config, data, chosen, replace(session, device=str(device)))
    name = describe(device)
    note = f"trained on {name} in {time.monotonic() - start:.0f} s"
    return replace(parts, notes=(*parts.notes, note), device=name)
