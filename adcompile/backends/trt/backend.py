"""NVIDIA TensorRT and TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import onnx_ir as ir

from adcompile.backends.trt.emit import emit_part
from adcompile.backends.trt.lowering import draft_part, lower_part
from adcompile.backends.trt.options import OPTIONS
from adcompile.backends.trt.support import supports as table_supports
from adcompile.fileset import FileSet
from adcompile.interfaces import Facts, LowerContext, Part, Pass, Trial, Verdict
from adcompile.manifest import PartRecord
from adcompile.target import Target


class TrtBackend:
    """Typed ONNX per part; a plan where the builder can run, a trtexec recipe where it cannot."""

    name: ClassVar[str] = "trt"
    options: ClassVar[Mapping[str, str]] = OPTIONS

    def supports(self, node: ir.Node, facts: Facts) -> Verdict:
        """Read the operator table of the target's TensorRT version."""
        return table_supports(node, facts)

    def prepare(self, target: Target) -> Sequence[Pass]:
        """TensorRT needs no rewrites of its own."""
        del target
        return ()

    def lower(self, part: Part, ctx: LowerContext) -> Part:
        """Typed fp16 or explicit int8, checked against the dialect."""
        return replace(part, model=lower_part(part, ctx), precision=ctx.precision)

    def draft(self, part: Part, ctx: LowerContext) -> Trial | None:
        """Calibrate once, for the accuracy search."""
        return draft_part(part, ctx)

    def emit(self, part: Part, lowered: Part, ctx: LowerContext, out: FileSet) -> PartRecord:
        """Model, typed model, plan action or recipe, readme."""
        return emit_part(part, lowered, ctx, out)
