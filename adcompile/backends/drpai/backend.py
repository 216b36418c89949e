"""Renesas DRP-AI (RZ/V series) through DRP-AI TVM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import onnx_ir as ir

from adcompile.backends.drpai.emit import emit_part
from adcompile.backends.drpai.lowering import draft_part, lower_part
from adcompile.backends.drpai.options import OPTIONS
from adcompile.backends.drpai.support import supports as table_supports
from adcompile.fileset import FileSet
from adcompile.interfaces import Facts, LowerContext, Part, Pass, Trial, Verdict
from adcompile.manifest import PartRecord
from adcompile.target import Target


class DrpaiBackend:
    """Float ONNX for the SDK, INT8 stand-in, calibration tensors, scripts, reference results."""

    name: ClassVar[str] = "drpai"
    options: ClassVar[Mapping[str, str]] = OPTIONS

    def supports(self, node: ir.Node, facts: Facts) -> Verdict:
        """Read the translator's operator list."""
        return table_supports(node, facts)

    def prepare(self, target: Target) -> Sequence[Pass]:
        """DRP-AI needs no rewrites of its own."""
        del target
        return ()

    def lower(self, part: Part, ctx: LowerContext) -> Part:
        """The stand-in for the device's numbers, checked against the dialect."""
        return replace(part, model=lower_part(part, ctx), precision=ctx.precision)

    def draft(self, part: Part, ctx: LowerContext) -> Trial | None:
        """Calibrate once, for the accuracy search."""
        return draft_part(part, ctx)

    def emit(self, part: Part, lowered: Part, ctx: LowerContext, out: FileSet) -> PartRecord:
        """Everything a person with the SDK needs, for one command."""
        return emit_part(part, lowered, ctx, out)
