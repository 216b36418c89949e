"""Streams: sets of values that can be multiplied by one gain without changing the model.

Convolutions and products write into and read from a stream; what lies between (Relu, Add, pools, …)
passes a positive gain through. Multiplying a stream by a gain means multiplying the weights and
biases of its writers and dividing the weights of its readers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from adcompile.ir.graph import constant, is_constant, static_shape
from adcompile.lower.points import attribute
from adcompile.lower.scheme import WEIGHTED, words

# ops that pass a positive gain per channel through unchanged
_CHANNELWISE = words(
    """Relu LeakyRelu MaxPool AveragePool GlobalAveragePool GlobalMaxPool Identity Dropout Resize
    Add Sum Max Min"""
)
# ops that pass one gain for the whole tensor through, but mix channels
_UNIFORM = words("Concat Flatten Reshape Squeeze Unsqueeze Transpose Slice Split DepthToSpace Pad")


@dataclass
class Stream:
    """``members`` are value names; writers and readers are weighted nodes, in graph order."""

    members: list[str] = field(default_factory=list[str])
    writers: list[ir.Node] = field(default_factory=list[ir.Node])
    readers: list[ir.Node] = field(default_factory=list[ir.Node])
    free: bool = True  # False: touches an input, output, or an op that is not homogeneous
    channels: int = 0  # 0: only one gain for the whole stream


class _Union:
    def __init__(self, names: Iterable[str]) -> None:
        self.parent = {name: name for name in names}

    def root(self, name: str) -> str:
        while self.parent[name] != name:
            self.parent[name] = self.parent[self.parent[name]]
            name = self.parent[name]
        return name

    def join(self, names: list[str]) -> None:
        for name in names[1:]:
            self.parent[self.root(name)] = self.root(names[0])


def find_streams(model: ir.Model) -> list[Stream]:
    """The streams of the main graph, in order of their first value."""
    graph = model.graph
    values = [*graph.inputs, *(v for node in graph for v in node.outputs)]
    union = _Union(v.name or "" for v in values)
    uniform: set[str] = set()
    closed: set[str] = {v.name or "" for v in (*graph.inputs, *graph.outputs)}
    for node in graph:
        _visit(node, union, uniform, closed)
    streams: dict[str, Stream] = {}
    widths: dict[str, set[int]] = {}
    for value in values:
        name = value.name or ""
        root = union.root(name)
        stream = streams.setdefault(root, Stream())
        stream.members.append(name)
        stream.free = stream.free and name not in closed
        shape = static_shape(value)
        width = shape[1] if shape is not None and len(shape) >= 2 else 0
        widths.setdefault(root, set()).add(0 if name in uniform else width)
    for node in graph:
        if is_weighted(node):
            streams[union.root(node.outputs[0].name or "")].writers.append(node)
            data = node.inputs[0]
            if data is not None and not is_constant(data):
                streams[union.root(data.name or "")].readers.append(node)
    for root, stream in streams.items():
        if len(widths[root]) == 1 and all(map(_takes_channels, stream.readers)):
            (stream.channels,) = widths[root]
    return list(streams.values())


def is_weighted(node: ir.Node) -> bool:
    """True for a Conv, ConvTranspose, Gemm or MatMul whose weight (and bias) are constants."""
    if node.domain or node.op_type not in WEIGHTED:
        return False
    weight, bias = WEIGHTED[node.op_type]
    if len(node.inputs) <= weight or constant(node.inputs[weight]) is None:
        return False
    extra = node.inputs[bias] if 0 < bias < len(node.inputs) else None
    if extra is not None and constant(extra) is None:
        return False
    if node.op_type == "Gemm":
        plain = not attribute(node, "transA", 0)
        return plain and all(attribute(node, k, 1.0) == 1.0 for k in ("alpha", "beta"))
    return True


def _takes_channels(node: ir.Node) -> bool:
    """True when a gain per channel can be divided out of the weight of *node*."""
    if node.op_type == "Conv":
        return True
    groups = attribute(node, "group", 1)
    if node.op_type == "ConvTranspose":
        return groups == 1
    shape = static_shape(node.inputs[0])
    return shape is not None and len(shape) == 2


def _visit(node: ir.Node, union: _Union, uniform: set[str], closed: set[str]) -> None:
    inputs = [v.name or "" for v in node.inputs if v is not None and not is_constant(v)]
    outputs = [v.name or "" for v in node.outputs]
    inputs = [n for n in inputs if n in union.parent]
    if is_weighted(node):
        if node.op_type == "MatMul":
            closed.update(inputs[1:])
        return
    scaled = node.op_type in ("Mul", "Div") and len(inputs) == 1 and is_constant(node.inputs[-1])
    passes = scaled or (node.op_type in _CHANNELWISE | _UNIFORM and bool(inputs))
    if node.domain or not passes or _has_offset(node):
        closed.update(inputs + outputs)
        return
    union.join([*inputs, *outputs])
    if node.op_type in _UNIFORM:
        uniform.update(inputs + outputs)


def _has_offset(node: ir.Node) -> bool:
    """True when a constant operand of the op would have to be multiplied, too."""
    if node.op_type in ("Add", "Sum", "Max", "Min", "Concat"):
        return any(is_constant(v) for v in node.inputs if v is not None)
    if node.op_type == "Pad":
        fill = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        given = len(node.inputs) > 2 and node.inputs[2] is not None
        return given and (fill is None or bool(fill.any()))
    return len(node.outputs) > 1 and node.op_type == "MaxPool"
