"""A model that computes in float32 with bfloat16 values: what a bfloat16 device does, in plain ONNX.

Weights are rounded in the file; every activation passes through a Cast to bfloat16 and back. Sums stay
in float32, as on the device.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from adcompile.ir.graph import constant, set_provenance
from adcompile.ir.shapes import infer_shapes
from adcompile.lower.insert import name_nodes
from adcompile.lower.scheme import words

RULE = "bfloat16"
OPSET = 13  # Cast knows bfloat16 from here on
# these only move values that are already rounded
_MOVES = words(
    "Reshape Flatten Transpose Squeeze Unsqueeze Slice Split Concat Identity Expand Gather MaxPool"
)


def to_bfloat(model: ir.Model, floats: frozenset[str] = frozenset()) -> ir.Model:
    """A simulation of *model* in bfloat16; nodes named in *floats* keep float32 results.

    Raises ModelError (from the opset change) only for models older than opset 13.
    """
    copy = model.clone()
    name_nodes(copy)
    infer_shapes(copy)
    graph = copy.graph
    for value in list(graph.initializers.values()):
        array = constant(value)
        if array is not None and array.dtype == np.float32 and array.size:
            rounded = array.astype(ml_dtypes.bfloat16).astype(np.float32)
            value.const_value = ir.tensor(rounded, name=value.name)
    for value in list(graph.inputs):
        if value.dtype == ir.DataType.FLOAT and not value.is_initializer():
            _round_after(graph, value)
    for node in list(graph):
        if node.op_type in _MOVES or node.name in floats or node.domain:
            continue
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT and value.name:
                _round_after(graph, value)
    return copy


def _round_after(graph: ir.Graph, value: ir.Value) -> None:
    """Put the two Casts behind *value*; a graph output keeps its name."""
    name = value.name or ""
    producer = value.producer()
    uses = list(value.uses())
    output = value.is_graph_output() and producer is not None
    if output:
        value.name = f"{name}_float"
    narrow = ir.Value(
        name=f"{name}_bf16", shape=value.shape, type=ir.TensorType(ir.DataType.BFLOAT16)
    )
    back = ir.Value(
        name=name if output else f"{name}_rounded",
        shape=value.shape,
        type=ir.TensorType(ir.DataType.FLOAT),
    )
    casts = [
        _cast(value, narrow, ir.DataType.BFLOAT16, f"{name}_to_bf16"),
        _cast(narrow, back, ir.DataType.FLOAT, f"{name}_from_bf16"),
    ]
    if producer is not None:
        graph.insert_after(producer, casts)
        for cast in casts:
            set_provenance(cast, [producer], RULE)
    elif len(graph):
        graph.insert_before(graph[0], casts)
    for use in uses:
        use.node.replace_input_with(use.idx, back)
    if output:
        for index, found in enumerate(graph.outputs):
            if found is value:
                graph.outputs[index] = back


def _cast(source: ir.Value, target: ir.Value, kind: ir.DataType, name: str) -> ir.Node:
    return ir.Node(
        "", "Cast", [source], [ir.AttrInt64("to", int(kind))], outputs=[target], name=name
    )
