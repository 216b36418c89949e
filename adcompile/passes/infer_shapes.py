"""infer-shapes: dtypes and shapes everywhere, by ONNX's own inference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from adcompile.errors import ModelError
from adcompile.interfaces import Pass, Report
from adcompile.ir.evaluate import open_model
from adcompile.ir.shapes import infer_shapes


@dataclass(frozen=True)
class InferShapes(Pass):
    """Fills in what ONNX can infer. A contradiction is an error.

    ONNX's inference is stricter than ONNX Runtime in places (Range of one-element vectors). When it
    objects to a model that ONNX Runtime accepts, the objection becomes a note and only the node in
    question stays without shapes.
    """

    name: ClassVar[str] = "infer-shapes"
    summary: ClassVar[str] = "infer dtypes and shapes of all values"

    def run(self, model: ir.Model, report: Report) -> bool:
        """True when a dtype or shape was learned; the nodes are not touched."""
        try:
            return infer_shapes(model)
        except ModelError as error:
            _check_runtime_accepts(model, error)
            note = f"shape inference objects, ONNX Runtime does not: {error.why}"
            if note not in report.notes:
                report.note(note)
            return infer_shapes(model, strict=False)


def _check_runtime_accepts(model: ir.Model, objection: ModelError) -> None:
    try:
        open_model(model)
    except ModelError as refusal:
        raise objection from refusal
