"""ONNX files to ``onnx_ir`` and back. The only place that touches protobuf.

Loading checks everything first (``screen``), keeps external data memory-mapped, turns ``Constant``
nodes into initializers and sorts the graphs. Saving is deterministic and atomic.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import cast

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir import external_data

from adcompile.errors import InputError, ModelError
from adcompile.fileset import staged_file
from adcompile.ir.constants import lift_constants
from adcompile.ir.screen import screen
from adcompile.ir.screen_tensors import Source
from adcompile.ir.slim import Buffer, map_file, slim, tensor_view, view_of
from adcompile.ir.wire import NOT_ONNX, diagnose
from adcompile.ir.writer import as_proto, write_inline, write_split

MAX_PROTO_BYTES = (1 << 31) - 1
MODERN_IR = 4
EXTERNAL_ABOVE = 1 << 30  # a model with more weights than this is saved with a data file

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
        buffer = map_file(file)
    except OSError as error:
        raise ModelError(
            "cannot read the model", where=str(file), why=error.strerror or str(error)
        ) from error
    return _read(buffer, str(file), file.parent)


def from_bytes(data: bytes, origin: str = "model bytes") -> ir.Model:
    """Read and check a model from memory; it may not refer to external data."""
    return _read(memoryview(data), origin, None)


def from_proto(proto: onnx.ModelProto, origin: str = "model") -> ir.Model:
    """Take over a protobuf model that is already in memory. *proto* may be changed."""
    return _build(proto, Source(origin), memoryview(b""))


def _read(buffer: Buffer, origin: str, folder: Path | None) -> ir.Model:
    small = slim(buffer)
    proto = _parse(small.data, buffer, origin)
    return _build(proto, Source(origin, folder, small.places), buffer)


def _parse(data: bytes, whole: Buffer, origin: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            "not an ONNX model",
            where=origin,
            why=diagnose(whole.tobytes()),
            fix="give the .onnx file; if it was copied or downloaded, do that again",
        ) from error
    if not proto.HasField("graph"):
        known = diagnose(whole.tobytes())
        raise ModelError(
            "not an ONNX model",
            where=origin,
            why="it has no graph" if known == NOT_ONNX else known,
            fix="give the .onnx file",
        )
    return proto


def _build(proto: onnx.ModelProto, source: Source, buffer: Buffer) -> ir.Model:
    screen(proto, source)
    stored = {t.name: t for t in proto.graph.initializer if t.name in source.places}
    try:
        model = ir.from_proto(proto)
    except _BUILD_ERRORS as error:
        raise ModelError(
            "model cannot be read", where=source.origin, why=_last_line(error)
        ) from error
    for name, tensor in stored.items():
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            view = tensor_view(tensor, buffer, *source.places[name])
            model.graph.initializers[name].const_value = view
    if source.folder is not None:
        _map_external(model, source.folder)
    _modernise(model)
    sort(model, source.origin)
    lift_constants(model)
    return model


def _modernise(model: ir.Model) -> None:
    """Before IR version 4 every initializer had to be listed as an input; now that means default."""
    if model.ir_version >= MODERN_IR:
        return
    model.ir_version = MODERN_IR
    given = [value for value in model.graph.inputs if not value.is_initializer()]
    model.graph.inputs.clear()
    model.graph.inputs.extend(given)


def _map_external(model: ir.Model, folder: Path) -> None:
    """Make tensors in data files views of one mapping per file."""
    external_data.set_base_dir(model.graph, str(folder))  # pyright: ignore[reportUnknownMemberType]
    files: dict[str, Buffer] = {}
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if not isinstance(tensor, ir.ExternalTensor) or tensor.dtype.bitwidth < 8:
                continue
            location = os.fspath(cast(str, tensor.location))  # pyright: ignore[reportUnknownMemberType]
            if location not in files:
                files[location] = map_file(folder / location)
            shape = tuple(tensor.shape.numpy())
            value.const_value = view_of(
                files[location], tensor.offset or 0, tensor.dtype, shape, tensor.name
            )


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
    return as_proto(model)


def to_bytes(model: ir.Model) -> bytes:
    """The model as one self-contained message, byte-stable; external data is read in.

    Raises ModelError when it would exceed protobuf's 2 GiB.
    """
    _check_size(model)
    stream = io.BytesIO()
    write_inline(model, stream)
    return stream.getvalue()


def _check_size(model: ir.Model) -> None:
    if weight_bytes(model) > MAX_PROTO_BYTES - (1 << 20):
        raise ModelError(
            "model is too large for one message",
            where=model.graph.name or "model",
            why="its weights exceed 2 GiB",
            fix="save it with external data",
        )


def serialized(proto: onnx.ModelProto) -> bytes:
    """The bytes of a protobuf model, the same for the same content."""
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


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
    if not split:
        _check_size(model)
    data = file.with_name(file.name + ".data")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(file) as stream:
            if not split:
                write_inline(model, stream)
                return
            with staged_file(data) as weights:
                write_split(model, stream, weights, data.name)
    except OSError as error:
        raise InputError(
            "cannot write the model", where=str(file), why=error.strerror or str(error)
        ) from error
