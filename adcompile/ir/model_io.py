"""ONNX files to ``onnx_ir`` and back. The only place that touches protobuf.

Loading checks everything first (``screen``), keeps external data memory-mapped, turns ``Constant``
nodes into initializers and sorts the graphs. Saving is deterministic and atomic.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir import external_data

from adcompile.errors import InputError, ModelError
from adcompile.ir.constants import lift_constants
from adcompile.ir.screen import screen
from adcompile.ir.wire import diagnose

MAX_PROTO_BYTES = (1 << 31) - 1
EXTERNAL_ABOVE = 1 << 30  # a model with more weights than this is saved with a data file
EXTERNAL_FROM = 1024  # smaller tensors stay inside the model file

# what onnx_ir raises on a graph that the screen lets through but the IR cannot hold
_BUILD_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, AssertionError, AttributeError)


def load_model(path: str | os.PathLike[str]) -> ir.Model:
    """Read and check an ONNX file. External data is mapped into memory, not read.

    Raises ModelError for anything that is not a sound ONNX model, with the reason and place.
    """
    file = Path(path)
    if not file.exists():
        raise ModelError("no such file", where=str(file), fix="check the path")
    if not file.is_file():
        raise ModelError("not a file", where=str(file))
    if file.stat().st_size > MAX_PROTO_BYTES:
        raise ModelError(
            "model file is larger than 2 GiB",
            where=str(file),
            why="protobuf cannot hold more in one message",
            fix="export with external data",
        )
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(
            "cannot read the model", where=str(file), why=error.strerror or str(error)
        ) from error
    return _build(_parse(data, str(file)), str(file), file.parent)


def from_bytes(data: bytes, origin: str = "model bytes") -> ir.Model:
    """Read and check a model from memory; it may not refer to external data."""
    return _build(_parse(data, origin), origin, None)


def from_proto(proto: onnx.ModelProto, origin: str = "model") -> ir.Model:
    """Take over a protobuf model that is already in memory. *proto* may be changed."""
    return _build(proto, origin, None)


def _parse(data: bytes, origin: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            "not an ONNX model",
            where=origin,
            why=diagnose(data),
            fix="give the .onnx file; if it was copied or downloaded, do that again",
        ) from error
    if not proto.HasField("graph"):
        raise ModelError(
            "not an ONNX model",
            where=origin,
            why=diagnose(data)
            if not data or data[0] not in (8, 18, 58, 66)
            else "it has no graph",
            fix="give the .onnx file",
        )
    return proto


def _build(proto: onnx.ModelProto, origin: str, folder: Path | None) -> ir.Model:
    screen(proto, origin, folder)
    try:
        model = ir.from_proto(proto)
    except _BUILD_ERRORS as error:
        raise ModelError("model cannot be read", where=origin, why=_last_line(error)) from error
    if folder is not None:
        external_data.set_base_dir(model.graph, str(folder))  # pyright: ignore[reportUnknownMemberType]
    sort(model, origin)
    lift_constants(model)
    return model


def sort(model: ir.Model, origin: str = "model") -> None:
    """Bring all graphs into execution order. A cycle is a ModelError that names a node on it."""
    graphs = [model.graph, *(f.graph for f in model.functions.values())]
    for graph in graphs:
        if _is_sorted(graph):
            continue
        try:
            graph.sort()
        except ValueError as error:
            raise ModelError(
                "graph has a cycle",
                where=f"{origin}: graph {graph.name or 'without name'!r}",
                why="a node needs its own result, directly or through others",
                fix="export the model again",
            ) from error


def _is_sorted(graph: ir.Graph) -> bool:
    """True when every node, inside subgraphs too, stands after the producers of its inputs."""
    done: set[ir.Node] = set()
    stack = [iter(graph)]
    parents: list[ir.Node] = []
    while stack:
        node = next(stack[-1], None)
        if node is None:
            stack.pop()
            if parents:
                done.add(parents.pop())
            continue
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer not in done:
                return False
        inner = [n for g in subgraphs_of(node) for n in g]
        stack.append(iter(inner))
        parents.append(node)
    return True


def subgraphs_of(node: ir.Node) -> list[ir.Graph]:
    """The graphs in a node's attributes, in attribute order."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def _last_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[-1][:300] if str(error).strip() else repr(error)


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The protobuf form. External data stays a reference."""
    return ir.to_proto(model)


def to_bytes(model: ir.Model) -> bytes:
    """The model as one self-contained message, byte-stable; external data is read in.

    Raises ModelError when it would exceed protobuf's 2 GiB.
    """
    if weight_bytes(model) > MAX_PROTO_BYTES - (1 << 20):
        raise ModelError(
            "model is too large for one message",
            where=model.graph.name or "model",
            why="its weights exceed 2 GiB",
            fix="save it with external data",
        )
    proto = to_proto(model)
    _inline_external(proto.graph, model.graph)
    return serialized(proto)


def serialized(proto: onnx.ModelProto) -> bytes:
    """The bytes of a protobuf model, the same for the same content."""
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _inline_external(proto: onnx.GraphProto, graph: ir.Graph) -> None:
    tensors = {v.name: v.const_value for v in graph.initializers.values()}
    for initializer in proto.initializer:
        tensor = tensors.get(initializer.name)
        if isinstance(tensor, ir.ExternalTensor):
            _inline(initializer, tensor)
    for node_proto, node in zip(proto.node, graph, strict=True):
        attributes = {a.name: a for a in node_proto.attribute}
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            target = attributes[attribute.name]
            if attribute.type == ir.AttributeType.TENSOR:
                if isinstance(tensor := attribute.as_tensor(), ir.ExternalTensor):
                    _inline(target.t, tensor)
            elif attribute.type == ir.AttributeType.GRAPH:
                _inline_external(target.g, attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for inner, graph_ in zip(target.graphs, attribute.as_graphs(), strict=True):
                    _inline_external(inner, graph_)


def _inline(proto: onnx.TensorProto, tensor: ir.ExternalTensor) -> None:
    del proto.external_data[:]
    proto.ClearField("data_location")
    proto.raw_data = tensor.tobytes()


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers, subgraphs included; reads no weight."""
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def save_model(
    model: ir.Model, path: str | os.PathLike[str], *, external: bool | None = None
) -> None:
    """Write *model* to *path*, atomically: a reader meets the old file or the new one.

    With *external* (default: when the weights exceed 1 GiB) tensors go to ``NAME.data`` beside it.
    The source model's own data file may be overwritten: it is replaced, not written into.
    """
    file = Path(path)
    split = weight_bytes(model) > EXTERNAL_ABOVE if external is None else external
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
            staged = Path(folder) / file.name
            if split:
                _save_split(model, staged)
                data = staged.with_name(file.name + ".data")
                if data.exists():
                    data.replace(file.with_name(data.name))
            else:
                staged.write_bytes(to_bytes(model))
            staged.replace(file)
    except OSError as error:
        raise InputError(
            "cannot write the model", where=str(file), why=error.strerror or str(error)
        ) from error


def _save_split(model: ir.Model, staged: Path) -> None:
    """Write weights to ``NAME.data`` one by one, so that no second copy is held in memory."""
    ir.save(  # pyright: ignore[reportUnknownMemberType]
        model,
        str(staged),
        external_data=staged.name + ".data",
        size_threshold_bytes=EXTERNAL_FROM,
    )
