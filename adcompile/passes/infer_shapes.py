"""infer-shapes: dtypes and shapes everywhere, by ONNX's own inference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from adcompile.interfaces import Pass, Report
from adcompile.ir.shapes import infer_shapes


@dataclass(frozen=True)
class InferShapes(Pass):
    """Fills in what ONNX can infer. Contradictions are errors, nothing is swallowed."""

    name: ClassVar[str] = "infer-shapes"
    summary: ClassVar[str] = "infer dtypes and shapes of all values"

    def run(self, model: ir.Model, report: Report) -> bool:
        """True when a dtype or shape was learned; the nodes are not touched."""
        return infer_shapes(model)
