"""From a float part to one of the NPU's number formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from adcompile.backend_options import float_nodes
from adcompile.backends.npu.approximate import RULE, approximate_kernels
from adcompile.backends.npu.dialect import violations
from adcompile.backends.npu.options import check_options
from adcompile.backends.npu.schemes import SCHEMES
from adcompile.errors import PassError, UsageError
from adcompile.interfaces import CalibrationData, Exactness, LowerContext, Part, Report, Trial
from adcompile.ir.graph import opset
from adcompile.ir.opset import reachable, settled
from adcompile.lower.bfloat import to_bfloat
from adcompile.lower.draft import draft
from adcompile.lower.insert import name_nodes
from adcompile.lower.mosaic import mosaic, square_grid
from adcompile.lower.quantizers import QuantizeRequest, quantizer
from adcompile.lower.rows import MosaicCalibration, bucket_sizes, row_counts
from adcompile.lower.scheme import Scheme
from adcompile.lower.violations import kept_in_float
from adcompile.runtime.tiles import Mosaic
from adcompile.target import opset_range, part_opsets

REWRITES: Mapping[str, tuple[Exactness, str]] = {
    "roi-mosaic": (Exactness.EXACT, "regions side by side in one image with gutters: one call"),
    "bfloat16": (Exactness.QUANTIZED, "the device's compiler computes the part in bfloat16"),
    RULE: (Exactness.QUANTIZED, "operators in the form of the NPU's integer kernels"),
    **{
        f"quantize:{name}": (Exactness.QUANTIZED, f"the part in {name}: Q/DQ, calibrated")
        for name in SCHEMES
    },
}
"""Names that lowering reports what it did under."""
PRECISIONS = (*SCHEMES, "bf16", "fp32")
# quantizers that bring the model to the kernels' form themselves
_VENDOR = frozenset({"quark", "vai_q_onnx"})
_FREE_ROWS = frozenset({"static-shape"})
_PACKED = frozenset({"mosaic", "bucket"})
DEFAULT_CAPACITY = 100


def lower_part(part: Part, ctx: LowerContext) -> ir.Model:
    """The model the device runs. fp32 is the part itself.

    A part of regions keeps its free number of rows here under the policy ``loop`` (``emit`` fixes it),
    and becomes a mosaic of its largest size under ``mosaic`` and ``bucket``. Raises UsageError without
    calibration data, PassError when the result breaks the dialect, Unsupported when a part has no
    mosaic form.
    """
    if ctx.precision not in PRECISIONS:
        raise UsageError(
            f"precision {ctx.precision!r} is not one of npu's",
            fix=f"choose from {', '.join(PRECISIONS)}",
        )
    check_options(ctx)
    model, data = part.model, ctx.calibration
    layout = packed_layout(part, ctx)
    if layout is not None:
        model, full = mosaic(part.model, largest(layout))
        data = MosaicCalibration(data, full) if data is not None else None
        ctx.report.applied("roi-mosaic", part.name, Exactness.EXACT, f"grids {layout.grids}")
    if ctx.precision == "fp32":
        return settled(model, *opset_range(ctx.target))
    if ctx.precision == "bf16":
        ctx.report.applied("bfloat16", part.name, Exactness.QUANTIZED, "by the device's compiler")
        return to_bfloat(settled(model, *opset_range(ctx.target)), float_nodes(ctx.options))
    return _integer(part, model, data, ctx, SCHEMES[ctx.precision])


def draft_part(part: Part, ctx: LowerContext) -> Trial | None:
    """How the integer formats behave with nodes left in float, by our own quantizer, row by row."""
    scheme = SCHEMES.get(ctx.precision)
    model = part.model.clone()
    name_nodes(model)
    named = model.clone()
    if scheme is not None and scheme.name == "xint8":
        approximate_kernels(model, scheme.ops, frozenset(), Report())
    return draft(model, ctx.calibration, scheme, named)


def packed_layout(part: Part, ctx: LowerContext) -> Mosaic | None:
    """The mosaic of a region part under ``mosaic`` or ``bucket``; None under other policies."""
    policy = ctx.options.get("roi_policy", "loop")
    if not part.rows or policy not in _PACKED:
        return None
    # neighbouring sizes may come to the same grid, or to one that holds as many
    by_capacity = {r * c: (r, c) for r, c in map(square_grid, _sizes(policy, ctx))}
    grids = tuple(by_capacity[tiles] for tiles in sorted(by_capacity))
    _, layout = mosaic(part.model, max(grids, key=lambda g: g[0] * g[1]))
    return Mosaic(layout.inputs, layout.outputs, grids)


def largest(layout: Mosaic) -> tuple[int, int]:
    """The grid with the most tiles."""
    return max(layout.grids, key=lambda g: g[0] * g[1])


def _sizes(policy: str, ctx: LowerContext) -> tuple[int, ...]:
    """Numbers of rows to compile for: from the plan, else from the recorded counts."""
    text = ctx.options.get("roi_buckets" if policy == "bucket" else "roi_capacity", "")
    if text:
        try:
            sizes = tuple(sorted({int(x) for x in text.split(",")}))
        except ValueError:
            sizes = ()
        if not sizes or sizes[0] < 1 or sizes[-1] > 4096:
            raise UsageError(f"row sizes {text!r}", fix="write numbers like 1,8,32 (at most 4096)")
        return sizes
    counts = row_counts(ctx.calibration) if ctx.calibration is not None else []
    if policy == "bucket" and any(counts):
        return bucket_sizes(counts)
    return (max([*counts, 0]) or DEFAULT_CAPACITY,)


def _integer(
    part: Part, model: ir.Model, data: CalibrationData | None, ctx: LowerContext, scheme: Scheme
) -> ir.Model:
    if data is None:
        raise UsageError(
            f"{scheme.name} needs calibration data",
            where=f"part {part.name!r}",
            fix="pass --calib FOLDER, or choose --precision fp32",
        )
    name = ctx.options.get("quantizer", "own")
    floats = float_nodes(ctx.options)
    if scheme.name == "xint8" and name not in _VENDOR:
        model = model.clone()
        name_nodes(model)
        approximate_kernels(model, scheme.ops, floats, ctx.report)
    versions = part_opsets(ctx.target, ctx.precision, opset(model))
    scheme = replace(scheme, opset=reachable(model, versions))
    request = QuantizeRequest(model, data, scheme, floats, ctx.work / f"{part.name}-{name}")
    model = quantizer(name)(request)
    ctx.report.applied(
        f"quantize:{scheme.name}", part.name, Exactness.QUANTIZED, f"quantizer {name}"
    )
    check_dialect(model, part, scheme.name, name, floats)
    return model


def check_dialect(
    model: ir.Model,
    part: Part,
    precision: str,
    name: str,
    floats: frozenset[str] = frozenset(),
) -> None:
    """Raise PassError naming the first broken rule. Parts of regions may have free rows here; the rules
    are for what runs in integers, not for the nodes of *floats*."""
    exempt = kept_in_float(model, floats)
    found = [
        v
        for v in violations(model, precision)
        if not (part.rows and v.rule in _FREE_ROWS) and v.node not in exempt
    ]
    if found:
        first = found[0]
        raise PassError(
            f"quantizer {name!r} broke the {precision} dialect {len(found)} times",
            where=f"part {part.name!r}, node {first.node!r}",
            why=f"{first.rule}: {first.why}",
        )
