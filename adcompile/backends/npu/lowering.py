"""From a float part to one of the NPU's number formats."""

from __future__ import annotations

import onnx_ir as ir

from adcompile.backends.npu.dialect import violations
from adcompile.backends.npu.schemes import SCHEMES
from adcompile.errors import PassError, UsageError
from adcompile.interfaces import Exactness, LowerContext, Part
from adcompile.lower.quantizers import QuantizeRequest, quantizer

FLOAT_PRECISIONS = frozenset({"fp32"})


def lower_part(part: Part, ctx: LowerContext) -> ir.Model:
    """The model the device runs. fp32 is the part itself.

    Raises UsageError without calibration data, PassError when the result breaks the dialect.
    """
    if ctx.precision in FLOAT_PRECISIONS:
        return part.model
    scheme = SCHEMES.get(ctx.precision)
    if scheme is None:
        raise UsageError(
            f"precision {ctx.precision!r} is not one of npu's",
            fix=f"choose from {', '.join([*SCHEMES, 'bf16', 'fp32'])}",
        )
    if ctx.calibration is None:
        raise UsageError(
            f"{ctx.precision} needs calibration data",
            where=f"part {part.name!r}",
            fix="pass --calib FOLDER, or choose --precision fp32",
        )
    name = ctx.options.get("quantizer", "own")
    request = QuantizeRequest(
        part.model, ctx.calibration, scheme, _floats(ctx), ctx.work / f"{part.name}-{name}"
    )
    model = quantizer(name)(request)
    ctx.report.applied(
        f"quantize:{scheme.name}", part.name, Exactness.QUANTIZED, f"quantizer {name}"
    )
    found = violations(model, scheme.name)
    if found:
        first = found[0]
        raise PassError(
            f"quantizer {name!r} broke the {scheme.name} dialect {len(found)} times",
            where=f"part {part.name!r}, node {first.node!r}",
            why=f"{first.rule}: {first.why}",
        )
    return model


def _floats(ctx: LowerContext) -> frozenset[str]:
    """Nodes kept in float: the option ``float_nodes``, names separated by line ends."""
    text = ctx.options.get("float_nodes", "")
    return frozenset(line for line in text.split("\n") if line)
