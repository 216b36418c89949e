"""What every method's training gives to the common rest of a fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.contract import Preprocess, Score

Watch = Callable[[str, int, int], None]
"""Progress: what is done, how many of how many."""

Build = Callable[[Score], ir.Model]
"""The whole detector as a graph, for a score."""


@dataclass(frozen=True)
class Parts:
    """How to build the graph for a score, and what to save beside it."""

    score: Score
    build: Build
    spec: Preprocess
    backbone: ir.Model | None = None
    bank: npt.NDArray[np.float32] | None = None
    statistics: Mapping[str, npt.NDArray[np.generic]] | None = None
    weights: Mapping[str, npt.NDArray[np.generic]] | None = None
    notes: tuple[str, ...] = ()
