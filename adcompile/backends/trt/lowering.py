"""From a float part to TensorRT's precisions: fp32, typed fp16, explicit int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from adcompile.backend_options import float_nodes
from adcompile.backends.trt.dialect import violations
from adcompile.backends.trt.options import read_options
from adcompile.backends.trt.schemes import INT8
from adcompile.errors import PassError, UsageError
from adcompile.interfaces import CalibrationData, Exactness, LowerContext, Part, Trial
from adcompile.ir.graph import opset
from adcompile.ir.opset import reachable, settled
from adcompile.ir.shapes import infer_shapes
from adcompile.lower.calibration import MemoryCalibration
from adcompile.lower.draft import draft
from adcompile.lower.half import ASKED, to_half
from adcompile.lower.insert import name_nodes
from adcompile.lower.observe import Observation, observe
from adcompile.lower.quantizers import QuantizeRequest, quantizer
from adcompile.lower.scheme import Scheme
from adcompile.target import opset_range, part_opsets

REWRITES: Mapping[str, tuple[Exactness, str]] = {
    "half": (Exactness.QUANTIZED, "the part in float16"),
    "quantize:trt-int8": (Exactness.QUANTIZED, "the part in int8: Q/DQ, calibrated"),
}
"""Names that lowering reports what it did under."""
PRECISIONS = ("fp32", "fp16", "int8")


def lower_part(part: Part, ctx: LowerContext) -> ir.Model:
    """The typed model the builder gets. Raises UsageError or PassError."""
    if ctx.precision not in PRECISIONS:
        raise UsageError(
            f"precision {ctx.precision!r} is not one of trt's",
            fix=f"choose from {', '.join(PRECISIONS)}",
        )
    read_options(ctx)  # what cannot be is said before any work
    model = settled(part.model, *opset_range(ctx.target))
    if ctx.precision == "fp32":
        return model
    floats = float_nodes(ctx.options)
    if ctx.precision == "fp16":
        return _half(part, model, ctx, floats)
    if ctx.calibration is None:
        raise UsageError(
            "int8 needs calibration data",
            where=f"part {part.name!r}",
            fix="pass --calib FOLDER, or choose --precision fp16",
        )
    name = ctx.options.get("quantizer", "own")
    request = QuantizeRequest(
        part.model, ctx.calibration, _scheme(part, ctx), floats, ctx.work / f"{part.name}-{name}"
    )
    model = quantizer(name)(request)
    ctx.report.applied("quantize:trt-int8", part.name, Exactness.QUANTIZED, f"quantizer {name}")
    found = violations(model)
    if found:
        raise PassError(
            f"quantizer {name!r} broke the TensorRT dialect {len(found)} times",
            where=f"part {part.name!r}, node {found[0].node!r}",
            why=f"{found[0].rule}: {found[0].why}",
        )
    return model


def draft_part(part: Part, ctx: LowerContext) -> Trial | None:
    """How int8 behaves with nodes left in float, by our own quantizer."""
    model = part.model.clone()
    name_nodes(model)
    scheme = _scheme(part, ctx) if ctx.precision == "int8" else None
    return draft(model, ctx.calibration, scheme, model)


def _scheme(part: Part, ctx: LowerContext) -> Scheme:
    """The format of int8 in the target's opset."""
    versions = part_opsets(ctx.target, ctx.precision, opset(part.model))
    return replace(INT8, opset=reachable(part.model, versions))


def _half(part: Part, source: ir.Model, ctx: LowerContext, floats: frozenset[str]) -> ir.Model:
    seen = _ranges(source, ctx)
    model, kept = to_half(source, seen, floats)
    ctx.report.applied("half", part.name, Exactness.QUANTIZED, f"{len(kept)} nodes in float32")
    for item in kept:
        if item.why != ASKED:  # who asked knows
            ctx.report.note(f"{part.name}: {item.node} stays in float32: {item.why}")
    if not seen:
        ctx.report.note(
            f"{part.name}: no data to check the float16 range with; only weights were checked"
        )
    return model


def _ranges(model: ir.Model, ctx: LowerContext) -> dict[str, Observation]:
    """Observed ranges from calibration, else from the golden inputs, else none."""
    data: CalibrationData | None = ctx.calibration
    if data is None and ctx.golden:
        data = MemoryCalibration([dict(feeds) for feeds, _ in ctx.golden])
    if data is None or len(data) == 0:
        return {}
    copy = model.clone()
    infer_shapes(copy)
    names = [
        v.name
        for node in copy.graph
        for v in node.outputs
        if v.name and v.dtype == ir.DataType.FLOAT
    ]
    names += [v.name for v in copy.graph.inputs if v.name and v.dtype == ir.DataType.FLOAT]
    return observe(copy, names, data)
