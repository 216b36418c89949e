"""AMD Ryzen AI NPU through ONNX Runtime's VitisAI execution provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import onnx_ir as ir

from adcompile.backends.npu.emit import emit_part
from adcompile.backends.npu.lowering import draft_part, lower_part
from adcompile.backends.npu.options import OPTIONS
from adcompile.backends.npu.support import supports as table_supports
from adcompile.fileset import FileSet
from adcompile.interfaces import Facts, LowerContext, Part, Pass, Trial, Verdict
from adcompile.manifest import PartRecord
from adcompile.passes.subsampling import MaxPool1x1
from adcompile.target import Target


class NpuBackend:
    """Quantized ONNX per part, session options per chip and Ryzen AI release."""

    name: ClassVar[str] = "npu"
    options: ClassVar[Mapping[str, str]] = OPTIONS

    def supports(self, node: ir.Node, facts: Facts) -> Verdict:
        """Read the operator table of the precision in question."""
        return table_supports(node, facts)

    def prepare(self, target: Target) -> Sequence[Pass]:
        """Exact rewrites that make nodes legal here: the NPU has no 1×1 pooling."""
        del target
        return (MaxPool1x1(),)

    def lower(self, part: Part, ctx: LowerContext) -> Part:
        """Quantize to the wanted precision and check the result against its dialect."""
        return replace(part, model=lower_part(part, ctx), precision=ctx.precision)

    def draft(self, part: Part, ctx: LowerContext) -> Trial | None:
        """Calibrate once, for the accuracy search."""
        return draft_part(part, ctx)

    def emit(self, part: Part, lowered: Part, ctx: LowerContext, out: FileSet) -> PartRecord:
        """Model, quantized model, session options, readme."""
        return emit_part(part, lowered, ctx, out)
