"""MaxPool with a 1×1 window: plain subsampling, which some targets do not accept as a pool.

``max-pool-1x1`` writes it as an identity depthwise Conv, ``max-pool-1x1-to-slice`` as a Slice:
both exact. ``maxpool-1x1-as-3x3`` is what the reference Mask R-CNN on Ryzen AI does by hand: a 3×3
window with padding 1, which takes the largest of nine neighbours instead. Another function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Exactness
from adcompile.ir.attributes import int_of, ints_of
from adcompile.ir.constants import const
from adcompile.ir.graph import static_shape
from adcompile.rewrite.driver import RewritePass
from adcompile.rewrite.pattern import Any, Match, op
from adcompile.rewrite.rules import Refuse, Rule, rule, typed_like

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


def _strides(m: Match) -> tuple[int, ...]:
    """The strides of a 1×1 MaxPool without padding; refuses any other pool."""
    node = m.root
    kernel = ints_of(node, "kernel_shape") or ()
    if not kernel or any(k != 1 for k in kernel):
        raise Refuse(f"the window is {list(kernel)}")
    if any(ints_of(node, "pads") or ()):
        raise Refuse("it pads")
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        raise Refuse("its indices are read")
    strides = ints_of(node, "strides") or (1,) * len(kernel)
    if int_of(node, "ceil_mode"):
        sizes = static_shape(m["x"])
        if sizes is None or any((d - 1) % s for d, s in zip(sizes[2:], strides, strict=True)):
            raise Refuse("ceil_mode may add a column")
    return strides


@rule(op("MaxPool", Any("x")))
def max_pool_1x1(m: Match) -> ir.Node:
    """MaxPool with a 1×1 window is a depthwise Conv with weight 1 and the same strides."""
    strides, shape = _strides(m), None if m["x"].shape is None else m["x"].shape.dims
    channels = shape[1] if shape is not None and len(shape) > 1 else None
    dtype = m["x"].dtype
    if not isinstance(channels, int):
        raise Refuse("the number of channels is unknown")
    if dtype not in _FLOATS or dtype is None:
        raise Refuse(f"Conv does not take {dtype}")
    ones = (1,) * len(strides)
    weight = const(np.ones((channels, 1, *ones), dtype=dtype.numpy()), f"{m.root.name}_ones")
    attributes = [
        ir.AttrInt64s("dilations", list(ones)),
        ir.AttrInt64("group", channels),
        ir.AttrInt64s("kernel_shape", list(ones)),
        ir.AttrInt64s("pads", [0] * (2 * len(strides))),
        ir.AttrInt64s("strides", list(strides)),
    ]
    return typed_like(ir.Node("", "Conv", [m["x"], weight], attributes), m.output)


@rule(op("MaxPool", Any("x")), opset=10)
def max_pool_1x1_to_slice(m: Match) -> ir.Node:
    """MaxPool with a 1×1 window is a Slice with the same strides as steps."""
    strides = _strides(m)
    count = len(strides)
    far = np.iinfo(np.int64).max
    parts = ([0] * count, [far] * count, list(range(2, 2 + count)), list(strides))
    operands = [const(np.asarray(p, dtype=np.int64)) for p in parts]
    return typed_like(ir.Node("", "Slice", [m["x"], *operands]), m.output)


@rule(op("MaxPool", Any("x")), name="maxpool-1x1-as-3x3", exactness=Exactness.APPROXIMATE)
def max_pool_1x1_as_3x3(m: Match) -> ir.Node:
    """MaxPool with a 1×1 window and stride 2 gets a 3×3 window and padding 1: other numbers."""
    strides = _strides(m)
    if any(s != 2 for s in strides):
        raise Refuse("with a stride other than 2 the size would change")
    count = len(strides)
    attributes = [
        ir.AttrInt64s("kernel_shape", [3] * count),
        ir.AttrInt64s("pads", [1] * (2 * count)),
        ir.AttrInt64s("strides", list(strides)),
    ]
    return typed_like(ir.Node("", "MaxPool", [m["x"]], attributes), m.output)


@dataclass(frozen=True)
class MaxPool1x1(RewritePass):
    """Subsampling as an identity depthwise Conv: every accelerator has that."""

    name: ClassVar[str] = "max-pool-1x1"
    summary: ClassVar[str] = "1×1 MaxPool to an identity depthwise Conv"
    rules: ClassVar[Sequence[Rule]] = (max_pool_1x1,)


@dataclass(frozen=True)
class MaxPool1x1ToSlice(RewritePass):
    """Subsampling as a Slice with steps."""

    name: ClassVar[str] = "max-pool-1x1-to-slice"
    summary: ClassVar[str] = "1×1 MaxPool to a Slice with steps"
    rules: ClassVar[Sequence[Rule]] = (max_pool_1x1_to_slice,)


@dataclass(frozen=True)
class MaxPool1x1As3x3(RewritePass):
    """The reference system's replacement; its error is measured where inputs are at hand."""

    name: ClassVar[str] = "maxpool-1x1-as-3x3"
    summary: ClassVar[str] = "1×1 stride-2 MaxPool to a 3×3 one, as the reference system does"
    exactness: ClassVar[Exactness] = Exactness.APPROXIMATE
    rules: ClassVar[Sequence[Rule]] = (max_pool_1x1_as_3x3,)
