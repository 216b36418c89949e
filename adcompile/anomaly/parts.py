"""What every method's training gives to the common rest of a fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.contract import Preprocess, Score

Watch = Callable[[str, int, int], None]
"""Progress: what is done, how many of how many."""

Build = Callable[[Score], ir.Model]
"""The whole detector as a graph, for a score."""


@dataclass(frozen=True)
class Session:
    """One training run: weights it goes on from, where its best state so far is kept, who watches.

    ``checkpoint`` is an ``.npz`` of tensors by name, replaced whole after every epoch that is
    better than all before it. ``device`` is torch's name of where the networks are trained.
    """

    start: Mapping[str, npt.NDArray[np.generic]] = field(
        default_factory=dict[str, npt.NDArray[np.generic]]
    )
    checkpoint: Path | None = None
    watch: Watch | None = None
    device: str = "cpu"

    def tell(self, what: str, done: int, total: int) -> None:
        """Tell the watcher how far the training is, and where it runs."""
        if self.watch is not None:
            self.watch(f"{what} ({self.device})", done, total)


@dataclass(frozen=True)
class Parts:
    """How to build the graph for a score, what to save beside it, and on which device it came to be
    (``cpu``, or a GPU's number, for torch with its name)."""

    score: Score
    build: Build
    spec: Preprocess
    backbone: ir.Model | None = None
    bank: npt.NDArray[np.float32] | None = None
    statistics: Mapping[str, npt.NDArray[np.generic]] | None = None
    weights: Mapping[str, npt.NDArray[np.generic]] | None = None
    notes: tuple[str, ...] = ()
    device: str = "cpu"
