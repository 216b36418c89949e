"""What stands behind the last layers of a detector: the arithmetic of its boxes and scores.

Boxes in pixels (0 … 640) and scores (0 … 1) meet there in one tensor. As integers they share a scale:
in 8 bits every score becomes 0 and boxes move by pixels, the well-known failure of quantized
detectors; in 16 bits scores below 0.01 do. Each layer's own output has a scale of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Array, Verdict
from adcompile.ir.graph import KERNELS, constant, is_constant
from adcompile.place.cost import work
from adcompile.place.planner import Better
from adcompile.target import COARSE_PRECISIONS

LARGEST = 0.25
"""Share of the multiply-adds that may leave the device for this."""
REASON = (
    "box and score arithmetic: as integers, boxes in pixels and scores in 0…1 would share a scale"
)
FIX = "--pin NODE=device"
SHARING = COARSE_PRECISIONS | {"a16w8"}
"""Precisions in which a tensor's values share a scale, or have too few bits for a box in pixels."""
RAW = "raw detections"
"""Role of a detector's output that nothing decodes."""


def tail_of(values: Iterable[ir.Value]) -> list[ir.Node]:
    """The nodes between the last layers and *values*, in graph order.

    A layer is what has weights; the expectation over a distribution (the weights 0, 1, 2 … of a box
    side's bins) is arithmetic, although exporters write it as a convolution.
    """
    pending = list(values)
    found: set[ir.Node] = set()
    while pending:
        node = pending.pop().producer()
        if node is None or node in found or _is_layer(node):
            continue
        found.add(node)
        pending += [v for v in node.inputs if v is not None and not is_constant(v)]
    graphs = {node.graph for node in found if node.graph is not None}
    return [node for graph in graphs for node in graph if node in found]


def _is_layer(node: ir.Node) -> bool:
    if node.domain or node.op_type not in KERNELS:
        return False
    weight = constant(node.inputs[1])
    return weight is not None and not _are_bins(weight)


def _are_bins(weight: Array) -> bool:
    """0, 1, 2 …, but for the rounding of a training that averaged them with themselves."""
    flat = weight.ravel()
    return flat.size > 1 and np.allclose(flat, np.arange(flat.size), rtol=1e-3, atol=1e-3)


def better_in_float(model: ir.Model, outputs: Collection[str]) -> dict[str, Better]:
    """Names of the nodes behind the last layers of *outputs*, with the reason to keep them in float.

    Empty when they are more than a quarter of the work: then they are no tail.
    """
    nodes = tail_of(v for v in model.graph.outputs if v.name in outputs)
    total = sum(work(node, 1) for node in model.graph)
    if sum(work(node, 1) for node in nodes) > LARGEST * total:
        return {}
    better = Better(Verdict.no(REASON, fix=FIX, source="accuracy"), SHARING)
    return {node.name or "": better for node in nodes}
