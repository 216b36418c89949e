"""From a float part to what the DRP-AI tools take, and to the INT8 file that stands for them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from adcompile.backend_options import float_nodes
from adcompile.backends.drpai.dialect import violations
from adcompile.backends.drpai.options import read_options
from adcompile.backends.drpai.schemes import INT8
from adcompile.errors import PassError, UsageError
from adcompile.interfaces import Exactness, LowerContext, Part, Trial
from adcompile.ir.opset import settled
from adcompile.lower.draft import draft
from adcompile.lower.half import to_half
from adcompile.lower.insert import name_nodes
from adcompile.lower.quantizers import QuantizeRequest, quantizer
from adcompile.lower.shape import fix_rows

REWRITES: Mapping[str, tuple[Exactness, str]] = {
    "half": (Exactness.QUANTIZED, "the part in float16"),
    "quantize:drpai-int8": (Exactness.QUANTIZED, "the part in int8: Q/DQ, calibrated"),
}
"""Names that lowering reports what it did under."""
OPSET_MIN, OPSET_MAX, FLOAT_IR = 11, 13, 8


def device_float(part: Part, rows: int = 1) -> ir.Model:
    """The float model for the vendor's tools: opset 11 to 13, batch 1.

    *rows* 0 leaves the number of regions free, for the simulation.
    """
    model = fix_rows(part.model, rows) if part.rows and rows else part.model.clone()
    return settled(model, OPSET_MIN, OPSET_MAX, FLOAT_IR)


def draft_part(part: Part, ctx: LowerContext) -> Trial | None:
    """How int8 behaves with nodes left in float, by our own quantizer."""
    model = device_float(part, rows=0)
    name_nodes(model)
    return draft(model, ctx.calibration, INT8 if ctx.precision == "int8" else None, model)


def lower_part(part: Part, ctx: LowerContext) -> ir.Model:
    """The model whose numbers stand for the device's. Raises UsageError or PassError."""
    read_options(ctx)  # what cannot be is said before any work
    if ctx.precision == "fp32":
        return device_float(part, rows=0)
    if ctx.precision == "fp16":
        half, _ = to_half(device_float(part, rows=0), {})
        ctx.report.applied("half", part.name, Exactness.QUANTIZED, "translator's fp16")
        return half
    if ctx.precision != "int8":
        raise UsageError(
            f"precision {ctx.precision!r} is not one of drpai's",
            fix=f"choose from {', '.join(ctx.target.precisions)}",
        )
    if ctx.calibration is None:
        raise UsageError(
            "int8 needs calibration data",
            where=f"part {part.name!r}",
            why="without it the vendor's script calibrates on random numbers",
            fix="pass --calib FOLDER",
        )
    name = ctx.options.get("quantizer", "own")
    floats = float_nodes(ctx.options)
    request = QuantizeRequest(
        device_float(part, rows=0), ctx.calibration, INT8, floats, ctx.work / f"{part.name}-{name}"
    )
    model = quantizer(name)(request)
    ctx.report.applied("quantize:drpai-int8", part.name, Exactness.QUANTIZED, f"quantizer {name}")
    found = [
        v
        for v in violations(model)
        if not (part.rows and v.rule == "static-shape") and v.node not in floats
    ]  # the rules are for what runs in int8; an activation that is left in float needs no Q/DQ
    if found:
        raise PassError(
            f"quantizer {name!r} broke the DRP-AI dialect {len(found)} times",
            where=f"part {part.name!r}, node {found[0].node!r}",
            why=f"{found[0].rule}: {found[0].why}",
        )
    return model
