"""Write models as a stream: weights go from their array (or mapped file) straight to the output.

A protobuf message is the concatenation of its fields, so the small part is serialised by protobuf
and the large initializers of the main graph are appended to the graph, one by one. The same model
gives the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from adcompile.errors import ModelError
from adcompile.ir.slim import field_header

INLINE = 1 << 10  # bytes; smaller tensors stay in the model file when there is a data file
ALIGN = 64  # bytes; where tensors start in a data file
BLOCK = 1 << 24

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # field numbers in onnx.proto
_ASIDE = "set-aside"


def as_proto(model: ir.Model) -> onnx.ModelProto:
    """The protobuf form. Text that is not UTF-8 (in doc strings, metadata) is a ModelError."""
    try:
        return ir.to_proto(model)
    except ir.serde.SerdeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if not isinstance(cause, UnicodeDecodeError):
            raise
        raise ModelError(
            "text in the model is not UTF-8",
            where=str(model.graph.name) or "model",
            why=str(cause),
            fix="export the model again",
        ) from error


@contextmanager
def weights_aside(
    model: ir.Model, above: int
) -> Generator[dict[ir.Value, ir.TensorProtocol], None, None]:
    """Within the block, initializers larger than *above* bytes have stand-ins without data."""
    held: dict[ir.Value, ir.TensorProtocol] = {}
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            big = tensor is not None and tensor.dtype != ir.DataType.STRING
            if tensor is not None and big and tensor.nbytes > above:
                held[value] = tensor
    try:
        for value, tensor in held.items():
            value.const_value = ir.ExternalTensor(
                _ASIDE,
                None,
                None,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name or "",
            )
        yield held
    finally:
        for value, tensor in held.items():
            value.const_value = tensor


def light_proto(
    model: ir.Model, above: int
) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """The protobuf without the main graph's initializers over *above* bytes, and those by name.

    Strings and the initializers of subgraphs are kept inside.
    """
    main = set(model.graph.initializers.values())
    with weights_aside(model, above) as held:
        proto = as_proto(model)
    if any(value not in main for value in held):
        _fill(proto.graph, model.graph, held, top=True)
    names = {v.name or "": t for v, t in held.items() if v in main}
    kept = [t for t in proto.graph.initializer if t.name not in names]
    if names:
        copies = [_copy(t) for t in kept]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(copies)
    return proto, names


def _fill(
    proto: onnx.GraphProto,
    graph: ir.Graph,
    held: dict[ir.Value, ir.TensorProtocol],
    *,
    top: bool = False,
) -> None:
    """Put the data of large initializers back into subgraphs."""
    if not top:
        for target in proto.initializer:
            tensor = held.get(graph.initializers[target.name])
            if tensor is not None:
                del target.external_data[:]
                target.ClearField("data_location")
                target.raw_data = tensor.tobytes()
    for node_proto, node in zip(proto.node, graph, strict=True):
        attributes = {a.name: a for a in node_proto.attribute}
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.GRAPH:
                _fill(attributes[attribute.name].g, attribute.as_graph(), held)
            elif attribute.type == ir.AttributeType.GRAPHS:
                pairs = zip(attributes[attribute.name].graphs, attribute.as_graphs(), strict=True)
                for inner_proto, inner in pairs:
                    _fill(inner_proto, inner, held)


def _copy(tensor: onnx.TensorProto) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    return copy


def _bytes(proto: onnx.ModelProto | onnx.GraphProto | onnx.TensorProto) -> bytes:
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _header(name: str, tensor: ir.TensorProtocol) -> onnx.TensorProto:
    proto = onnx.TensorProto(name=name, data_type=tensor.dtype.value)
    proto.dims.extend(tensor.shape.numpy())
    if tensor.doc_string:
        proto.doc_string = tensor.doc_string
    for key, text in sorted(tensor.metadata_props.items()):
        proto.metadata_props.add(key=key, value=text)
    return proto


def write_inline(model: ir.Model, stream: BinaryIO) -> None:
    """Write one self-contained message."""
    proto, weights = light_proto(model, -1)
    heads: list[tuple[bytes, ir.TensorProtocol]] = []
    size = 0
    for name, tensor in weights.items():
        head = _bytes(_header(name, tensor)) + field_header(_RAW_DATA, tensor.nbytes)
        head = field_header(_INITIALIZER, len(head) + tensor.nbytes) + head
        heads.append((head, tensor))
        size += len(head) + tensor.nbytes
    _write_model(proto, stream, size)
    for head, tensor in heads:
        stream.write(head)
        write_tensor(tensor, stream)


def _write_model(proto: onnx.ModelProto, stream: BinaryIO, extra: int) -> None:
    """Everything but the large weights; the graph is left open for *extra* more bytes."""
    graph = _bytes(proto.graph)
    proto.ClearField("graph")
    stream.write(_bytes(proto))
    stream.write(field_header(_GRAPH, len(graph) + extra))
    stream.write(graph)


def write_split(model: ir.Model, stream: BinaryIO, data: BinaryIO, location: str) -> None:
    """Write the model to *stream* and its large weights to *data*, which will be *location*."""
    proto, weights = light_proto(model, -1)
    place = 0
    for name, tensor in weights.items():
        header = _header(name, tensor)
        if tensor.nbytes <= INLINE:
            header.raw_data = tensor.tobytes()
        else:
            start = -(-place // ALIGN) * ALIGN
            data.write(b"\0" * (start - place))
            write_tensor(tensor, data)
            place = start + tensor.nbytes
            header.data_location = onnx.TensorProto.EXTERNAL
            entries = {"location": location, "offset": str(start), "length": str(tensor.nbytes)}
            for key, text in entries.items():
                header.external_data.add(key=key, value=text)
        proto.graph.initializer.append(header)
    _write_model(proto, stream, 0)


def write_tensor(tensor: ir.TensorProtocol, stream: BinaryIO) -> None:
    """The tensor's bytes, little endian, in blocks: no second copy is held."""
    if tensor.dtype.bitwidth < 8 or sys.byteorder != "little":
        stream.write(tensor.tobytes())
        return
    flat = tensor.numpy().reshape(-1)
    step = max(1, BLOCK // max(1, flat.itemsize))
    for start in range(0, flat.size, step):
        part = np.ascontiguousarray(flat[start : start + step])
        stream.write(part.view(np.uint8).data)
