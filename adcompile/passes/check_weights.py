"""check-weights: refuse NaN in weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from adcompile.errors import ModelError
from adcompile.interfaces import Array, Pass, Report

ALLOWED = "nan-weights"
BLOCK = 1 << 22
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)


@dataclass(frozen=True)
class CheckWeights(Pass):
    """A NaN in a tensor of more than one element is an error: training has diverged, or the file
    is damaged. ``--allow nan-weights`` turns the error into a note. Single NaN numbers (used as a
    fill value) and infinities (used in masks) are fine. Weights are read block by block.
    """

    name: ClassVar[str] = "check-weights"
    summary: ClassVar[str] = "refuse NaN in weights (allow with nan-weights)"

    def run(self, model: ir.Model, report: Report) -> bool:
        """Look through all floating-point initializers; changes nothing."""
        for graph in model.graphs():
            for value in graph.initializers.values():
                count = _nan_count(value.const_value)
                if not count:
                    continue
                if not report.allows(ALLOWED):
                    raise ModelError(
                        f"weight {value.name!r} contains NaN",
                        where=f"{count:,} of {value.const_value.size if value.const_value else 0:,}"
                        " elements",
                        why="training diverged, or the file is damaged",
                        fix=f"export the model again, or go on with --allow {ALLOWED}",
                    )
                report.note(f"weight {value.name!r} contains {count:,} NaN")
        return False


def _nan_count(tensor: ir.TensorProtocol | None) -> int:
    if tensor is None or tensor.dtype not in _FLOATS or tensor.size <= 1:
        return 0
    return sum(int(np.count_nonzero(np.isnan(block))) for block in _blocks(tensor.numpy()))


def _blocks(array: Array) -> Iterator[np.ndarray[tuple[int], np.dtype[np.floating]]]:
    flat = array.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        yield flat[start : start + BLOCK]  # type: ignore[misc]
