"""Constants: new ones, what one holds, and ``Constant`` nodes as initializers: one form for all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.interfaces import Array

# attribute of a Constant node -> element type of the tensor it stands for
_SCALARS: dict[str, ir.DataType] = {
    "value_float": ir.DataType.FLOAT,
    "value_floats": ir.DataType.FLOAT,
    "value_int": ir.DataType.INT64,
    "value_ints": ir.DataType.INT64,
}


def const(array: Array, name: str = "") -> ir.Value:
    """A new constant that no graph has yet: the driver registers those of a rule's result."""
    tensor = ir.tensor(np.asarray(array, order="C"), name=name or None)
    return ir.Value(
        name=name or None,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )


def add_constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A new initializer of *graph*, called *name*, which nothing else there is."""
    value = const(array, name)
    graph.register_initializer(value)
    return value


def lift_constants(model: ir.Model) -> bool:
    """Replace every liftable ``Constant`` node by an initializer of its own graph.

    Constants in functions stay (functions have no initializers), and so do sparse ones and those
    that are outputs of an If/Loop/Scan body: a body's output must be made by a node.
    """
    changed = False
    for graph in list(model.graphs()):
        for node in list(graph):
            if node.op_type == "Constant" and node.domain == "":
                changed = _lift(node, graph, is_main=graph is model.graph) or changed
    return changed


def _lift(node: ir.Node, graph: ir.Graph, *, is_main: bool) -> bool:
    old = node.outputs[0]
    tensor = tensor_of(node)
    if tensor is None or (old.is_graph_output() and not is_main):
        return False
    name = old.name
    new = ir.Value(
        name=name,
        shape=ir.Shape(tensor.shape.numpy()),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    new.metadata_props.update(old.metadata_props)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    tensor.name = name
    graph.initializers.add(new)
    return True


def tensor_of(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor of a ``Constant`` node; None when it is sparse or a function's parameter."""
    if len(node.attributes) != 1:
        return None
    (attribute,) = node.attributes.values()
    if attribute.is_ref():
        return None
    if attribute.name == "value":
        return attribute.as_tensor()
    if attribute.name == "value_string":
        return ir.StringTensor([attribute.as_string().encode()], shape=ir.Shape([]))
    if attribute.name == "value_strings":
        texts = [text.encode() for text in attribute.as_strings()]
        return ir.StringTensor(texts, shape=ir.Shape([len(texts)]))
    dtype = _SCALARS.get(attribute.name)
    if dtype is None:
        return None
    return ir.tensor(np.asarray(attribute.value, dtype=dtype.numpy()), dtype=dtype)


def refill(value: ir.Value, array: npt.NDArray[np.generic]) -> None:
    """Let the initializer *value* hold *array* instead, of any shape and the same type."""
    data = np.asarray(array, order="C")  # ascontiguousarray would make 0-d arrays 1-d
    value.const_value = ir.tensor(data, name=value.name)
    value.shape = ir.Shape(data.shape)
