"""Resampling and quantisation."""

from __future__ import annotations

from adcompile.backends.host.codegen import literals
from adcompile.backends.host.codegen.call import Call, call
from adcompile.backends.host.codegen.neural import SCRATCH, optional, single
from adcompile.backends.host.codegen.registry import ANY, FLOATS, Op, T, Table

_MODES = {"nearest": "nearest", "linear": "linear", "cubic": "cubic"}
_COORDINATES = {
    n: n
    for n in (
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_crop_and_resize",
    )
}
_ROUNDING = {
    "round_prefer_floor": "prefer_floor",
    "round_prefer_ceil": "prefer_ceil",
    "floor": "floor",
    "ceil": "ceil",
}
_ASPECT = {"stretch": "stretch", "not_larger": "not_larger", "not_smaller": "not_smaller"}


def _spec(c: Call, coordinates: str) -> str:
    fields = [
        "op::Resample::" + c.choice("mode", "nearest", _MODES),
        "op::Coordinates::" + coordinates,
        "op::Rounding::" + c.choice("nearest_mode", "round_prefer_floor", _ROUNDING),
        "op::Aspect::" + c.choice("keep_aspect_ratio_policy", "stretch", _ASPECT),
        literals.boolean(c.attr_int("antialias")),
        literals.boolean(c.attr_int("exclude_outside")),
        single(c.attr_float("cubic_coeff_a", -0.75)),
        single(c.attr_float("extrapolation_value")),
    ]
    return "op::ResizeSpec" + literals.braces(fields)


def _given(c: Call, i: int) -> bool:
    """True when the i-th input is there and not an empty list."""
    if not c.has(i):
        return False
    known = c.constant(i)
    dims = c.shape(i)
    return not (known is not None and known.size == 0) and not (dims is not None and dims == (0,))


def _resize(c: Call) -> str:
    return call("resize", c.out(), SCRATCH, c.arg(0), *_plan(c))


def _resized(c: Call) -> str:
    return call("resized", SCRATCH, c.arg(0), *_plan(c))


def _plan(c: Call) -> tuple[str, str]:
    """The sizes and scales of all axes, and what else the model says."""
    if c.opset < 11:
        return _upsample_plan(c)
    mode = c.choice("coordinate_transformation_mode", "half_pixel", _COORDINATES)
    roi = c.arg(1) if _given(c, 1) and mode == "tf_crop_and_resize" else "op::absent<float>()"
    scales = c.arg(2) if _given(c, 2) else "op::absent<float>()"
    sizes = c.shape_arg(3) if _given(c, 3) else "Shape{}"
    spec = _spec(c, mode)
    if roi != "op::absent<float>()" and c.dtype(1) is not T.FLOAT:
        raise c.refuse("roi is not float32")
    axes = literals.shape(c.attr_ints("axes"))
    plan = call("plan_resize", f"{c.arg(0)}.shape()", axes, roi, scales, sizes, spec)
    return plan, spec


def _upsample_plan(c: Call) -> tuple[str, str]:
    """Upsample, and Resize before opset 11: scales only, corner-aligned, rounding down."""
    spec = _spec(c, "asymmetric").replace("prefer_floor", "floor")
    absent = "op::absent<float>()"
    plan = call("plan_resize", f"{c.arg(0)}.shape()", "Shape{}", absent, c.arg(1), "Shape{}", spec)
    return plan, spec


def _upsample(c: Call) -> str:
    return call("resize", c.out(), SCRATCH, c.arg(0), *_upsample_plan(c))


def _grid_sample(c: Call) -> str:
    modes = {"linear": "linear", "bilinear": "linear", "nearest": "nearest"}
    modes |= {"cubic": "cubic", "bicubic": "cubic"}
    mode = "op::GridMode::" + c.choice("mode", "linear", modes)
    paddings = {n: n for n in ("zeros", "border", "reflection")}
    padding = "op::GridPadding::" + c.choice("padding_mode", "zeros", paddings)
    corners = literals.boolean(c.attr_int("align_corners"))
    return call("grid_sample", c.out(), c.arg(0), c.arg(1), mode, padding, corners)


def _axis_and_block(c: Call) -> list[str]:
    return [str(c.attr_int("axis", 1)), str(c.attr_int("block_size"))]


def _quantize(c: Call) -> str:
    types = f"quantize<{c.out_cpp()}>"
    return call(types, c.out(), c.arg(0), c.arg(1), optional(c, 2), *_axis_and_block(c))


def _dequantize(c: Call) -> str:
    types = f"dequantize<{c.out_cpp()}, {c.cpp()}>"
    return call(types, c.out(), c.arg(0), c.arg(1), optional(c, 2), *_axis_and_block(c))


def _dynamic_quantize(c: Call) -> str:
    return call("dynamic_quantize", c.out(0), c.out(1), c.out(2), c.arg(0))


_QUANTIZED = (T.INT8, T.UINT8, T.INT16, T.UINT16, T.INT32)

TABLE: Table = {
    "Resize": Op(_resize, ANY, 10, piece=_resized),
    "Upsample": Op(_upsample, ANY, 9),
    "GridSample": Op(_grid_sample, FLOATS, 16),
    "QuantizeLinear": Op(_quantize, (T.FLOAT, T.FLOAT16), 10),
    "DequantizeLinear": Op(_dequantize, _QUANTIZED, 10),
    "DynamicQuantizeLinear": Op(_dynamic_quantize, (T.FLOAT,), 11),
}
