"""Operators of detectors."""

from __future__ import annotations

import onnx_ir as ir

from adcompile.backends.host.codegen import literals
from adcompile.backends.host.codegen.call import Call, call
from adcompile.backends.host.codegen.registry import Op, T, Table

F = ir.DataType.FLOAT


def _scalar(c: Call, i: int, default: str) -> str:
    known = c.constant(i)
    if known is not None and known.size == 1:
        return literals.number(known.reshape(-1)[0], c.dtype(i))
    return f"{c.arg(i)}.item()" if c.has(i) else default


def _nms(c: Call) -> str:
    return call(
        "non_max_suppression",
        c.out(),
        "ws.scratch()",
        c.arg(0),
        c.arg(1),
        _scalar(c, 2, "0"),
        _scalar(c, 3, "0.0f"),
        literals.boolean(c.has(4)),
        _scalar(c, 4, "0.0f"),
        literals.boolean(c.attr_int("center_point_box")),
    )


def _roi_align(c: Call) -> str:
    half = "half_pixel" if c.opset >= 16 else "output_half_pixel"
    offset = c.choice(
        "coordinate_transformation_mode",
        half,
        {"half_pixel": "true", "output_half_pixel": "false"},
    )
    mode = c.choice("mode", "avg", {"avg": "op::Pool::mean", "max": "op::Pool::largest"})
    sizes = [str(c.attr_int(n, 1)) for n in ("output_height", "output_width")]
    return call(
        "roi_align",
        c.out(),
        "ws.scratch()",
        *c.args(),
        "Shape" + literals.braces(sizes),
        str(c.attr_int("sampling_ratio")),
        literals.number(c.attr_float("spatial_scale", 1.0), F),
        offset,
        mode,
    )


TABLE: Table = {
    "NonMaxSuppression": Op(_nms, (T.FLOAT,), 10),
    "RoiAlign": Op(_roi_align, (T.FLOAT,), 10, others={2: (T.INT64,)}),
}
