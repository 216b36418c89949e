"""What of a detector is computed in float where the device has 8 bits: where it compares an image with
its own reconstruction, and what comes behind its head.

What is left there is a small difference of two large values. In 8 bits it is mostly the rounding of
both, and its range comes from normal images, where it is smallest: the large errors of defects are cut
off. So it is better computed in float, from the image itself and the reconstruction.
"""

from __future__ import annotations

import onnx_ir as ir

from adcompile.anomaly.recognise.describe import head_nodes
from adcompile.anomaly.recognise.slices import downstream, upstream
from adcompile.interfaces import Verdict
from adcompile.ir.graph import KERNELS, is_constant
from adcompile.place.cost import work

LARGEST = 0.25
"""Share of the multiply-adds that may move to the host for this."""
REASON = "image minus its reconstruction: 8 bits would round the small difference away"
BEHIND = "score and map: 8 bits calibrated on normal images would cut off those of defects"
FIX = "a precision of 16 bits, or --pin NODE=device"

_LIGHT = frozenset({"Identity", "Cast", "Add", "Sub", "Mul", "Div"})


def residual_nodes(model: ir.Model) -> list[ir.Node]:
    """The nodes from a difference of an input and what was learned of it, up to the outputs.

    Empty when they are more than a quarter of the work: then the difference is not the end of the
    detector but its beginning.
    """
    starts = [v for node in model.graph if _compares(node) for v in node.outputs]
    found = downstream(starts)
    nodes = [n for n in model.graph if any(v in starts for v in n.outputs)] + found
    spent = sum(work(n, 1) for n in nodes)
    total = sum(work(n, 1) for n in model.graph)
    return nodes if spent <= LARGEST * total else []


def _compares(node: ir.Node) -> bool:
    if node.op_type != "Sub" or node.domain != "":
        return False
    a, b = node.inputs
    if a is None or b is None:
        return False
    return (_is_image(a) and _is_learned(b)) or (_is_image(b) and _is_learned(a))


def _is_image(value: ir.Value) -> bool:
    """An input, or an input on another scale."""
    while not value.is_graph_input():
        node = value.producer()
        if node is None or node.op_type not in _LIGHT:
            return False
        moving = [v for v in node.inputs if v is not None and not is_constant(v)]
        if len(moving) != 1:
            return False
        value = moving[0]
    return True


def _is_learned(value: ir.Value) -> bool:
    """Made by layers with weights."""
    return any(node.op_type in KERNELS for node in upstream(value))


def better_in_float(model: ir.Model) -> dict[str, Verdict]:
    """Names of nodes that are better off the device in a coarse precision, each with the reason."""
    heads = [value for node in head_nodes(model) for value in node.outputs]
    groups = ((REASON, residual_nodes(model)), (BEHIND, downstream(heads)))
    return {
        node.name or "": Verdict.no(reason, fix=FIX, source="accuracy")
        for reason, nodes in groups
        for node in nodes
    }
