"""Shape and type inference that raises instead of swallowing errors."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx.shape_inference import InferenceError

from adcompile.errors import ModelError
from adcompile.ir import model_io
from adcompile.ir.writer import weights_aside

KEEP_BELOW = 1024  # bytes; larger weights cannot be a shape and are set aside


def infer_shapes(model: ir.Model, *, strict: bool = True) -> bool:
    """Fill in dtypes and shapes everywhere, subgraphs included; True when something was learned.

    Known static dimensions are never forgotten. A contradiction is a ModelError; without *strict*
    the node at fault is left without shapes and the rest goes on.
    """
    proto = light_proto(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(
            proto, check_type=False, strict_mode=strict, data_prop=True
        )
    except (InferenceError, ValueError, TypeError) as error:
        raise ModelError(
            "shapes in the model contradict each other",
            where=model.graph.name or "model",
            why=_first_line(error),
            fix="check --input-shape, or export the model again",
        ) from error
    return _merge_graph(model.graph, inferred.graph)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:400] if lines else repr(error)


def light_proto(model: ir.Model) -> onnx.ModelProto:
    """The protobuf without large weights, for checks: they become inputs of the same type and shape."""
    with weights_aside(model, KEEP_BELOW):
        proto = model_io.to_proto(model)
    _drop_stand_ins(proto.graph)
    return proto


def _drop_stand_ins(graph: onnx.GraphProto) -> None:
    kept: list[onnx.TensorProto] = []
    inputs = {value.name for value in graph.input}
    for tensor in graph.initializer:
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        if not external:
            kept.append(tensor)
        elif tensor.name not in inputs:
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    if len(kept) != len(graph.initializer):
        copies = [_copy(tensor) for tensor in kept]
        del graph.initializer[:]
        graph.initializer.extend(copies)


def _copy(tensor: onnx.TensorProto) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    return copy


def _merge_graph(graph: ir.Graph, proto: onnx.GraphProto) -> bool:
    infos = {info.name: info for info in proto.value_info}
    infos.update({info.name: info for info in proto.output})
    changed = False
    for node, node_proto in zip(graph, proto.node, strict=True):
        for value in node.outputs:
            info = infos.get(value.name or "")
            if info is not None:
                changed = _merge_value(value, info.type) or changed
        for inner, inner_proto in _pairs(node, node_proto):
            changed = _merge_graph(inner, inner_proto) or changed
    return changed


def _pairs(node: ir.Node, proto: onnx.NodeProto) -> list[tuple[ir.Graph, onnx.GraphProto]]:
    graphs = model_io.subgraphs_of(node)
    if not graphs:
        return []
    protos: list[onnx.GraphProto] = []
    for attribute in proto.attribute:
        if attribute.HasField("g"):
            protos.append(attribute.g)
        protos.extend(attribute.graphs)
    return list(zip(graphs, protos, strict=True))


def _merge_value(value: ir.Value, proto: onnx.TypeProto) -> bool:
    changed = False
    if value.type is None and proto.WhichOneof("value") is not None:
        value.type = ir.serde.deserialize_type_proto_for_type(proto)
        changed = value.type is not None
    if not proto.HasField("tensor_type") or not proto.tensor_type.HasField("shape"):
        return changed
    dims = proto.tensor_type.shape.dim
    old = value.shape
    if old is None:
        value.shape = ir.Shape([_dimension(d) for d in dims])
        return True
    if len(old) != len(dims):
        raise ModelError(
            "shapes in the model contradict each other",
            where=f"value {value.name!r}",
            why=f"it is declared with {len(old)} dimensions, inferred with {len(dims)}",
        )
    merged = [_better(a, d) for a, d in zip(old.dims, dims, strict=True)]
    if all(a == b for a, b in zip(merged, old.dims, strict=True)):
        return changed
    value.shape = ir.Shape(merged)
    return True


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return dim.dim_value
    return dim.dim_param or None


def _better(
    old: int | ir.SymbolicDim, dim: onnx.TensorShapeProto.Dimension
) -> int | str | ir.SymbolicDim | None:
    """The more specific of two dimensions: a number, then a named symbol, then nothing."""
    if isinstance(old, int) or (old.value is not None and not dim.HasField("dim_value")):
        return old
    return _dimension(dim)
