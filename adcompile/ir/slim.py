"""Take large weights out of an ONNX file before protobuf sees it.

The bytes of big initializers are found in the file and left where they are; protobuf parses the
rest, and the weights become views of the memory-mapped file. Loading thus neither copies nor reads
weights, whether they lie in the model file or beside it.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

BIG = 1 << 12  # bytes of raw data from which on a tensor stays in the file

_GRAPH, _INITIALIZER, _RAW_DATA, _NAME = 7, 5, 9, 8  # field numbers in onnx.proto
_LENGTH_DELIMITED = 2
_FIXED = {1: 8, 5: 4}

Buffer: TypeAlias = memoryview


@dataclass
class Slim:
    """The model bytes without big weights, and where those are: name to (offset, length)."""

    data: bytes
    places: dict[str, tuple[int, int]] = field(default_factory=dict[str, "tuple[int, int]"])


class _Damaged(Exception):
    """The wire format is broken; protobuf will say so properly."""


def map_file(path: Path) -> Buffer:
    """The file as read-only bytes; an empty file gives an empty view.

    One mapping per file, however many tensors are views of it.
    """
    with path.open("rb") as stream:
        if path.stat().st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def slim(buffer: Buffer) -> Slim:
    """Split *buffer* (a whole ONNX file); returns it unchanged when it is small or damaged."""
    result = Slim(b"")
    try:
        result.data = b"".join(_model(buffer, result.places))
    except _Damaged:
        return Slim(buffer.tobytes())
    return result


def _model(view: memoryview, places: dict[str, tuple[int, int]]) -> Iterator[bytes]:
    for number, start, body, end in _fields(view, 0, len(view)):
        if number != _GRAPH:
            yield bytes(view[start:end])
            continue
        graph = b"".join(_graph(view, body, end, places))
        yield _tag(_GRAPH) + _varint(len(graph)) + graph


def _graph(
    view: memoryview, begin: int, stop: int, places: dict[str, tuple[int, int]]
) -> Iterator[bytes]:
    plain = begin  # start of the run of fields that are kept as they are
    for number, start, body, end in _fields(view, begin, stop):
        if number != _INITIALIZER or end - body < BIG:
            continue
        tensor = _tensor(view, body, end, places)
        if tensor is None:
            continue
        yield bytes(view[plain:start])
        yield _tag(_INITIALIZER) + _varint(len(tensor)) + tensor
        plain = end
    yield bytes(view[plain:stop])


def _tensor(
    view: memoryview, begin: int, stop: int, places: dict[str, tuple[int, int]]
) -> bytes | None:
    """A TensorProto without its raw data; None when it has none, or no unique name."""
    kept: list[bytes] = []
    raw: tuple[int, int] | None = None
    name = ""
    for number, start, body, end in _fields(view, begin, stop):
        if number == _RAW_DATA:
            if raw is not None:
                return None
            raw = (body, end - body)
            continue
        if number == _NAME:
            name = bytes(view[body:end]).decode("utf-8", "replace")
        kept.append(bytes(view[start:end]))
    if raw is None or not name or name in places:
        return None
    places[name] = raw
    return b"".join(kept)


def _fields(view: memoryview, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, start, start of content, end) of each field between two positions."""
    while position < end:
        start = position
        key, position = _read(view, position, end)
        number, wire = key >> 3, key & 7
        if wire == _LENGTH_DELIMITED:
            size, body = _read(view, position, end)
            position = body + size
        elif wire == 0:
            body = position
            _, position = _read(view, position, end)
        elif wire in _FIXED:
            body = position
            position += _FIXED[wire]
        else:
            raise _Damaged
        if position > end:
            raise _Damaged
        yield number, start, body, position


def _read(view: memoryview, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise _Damaged
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _Damaged


def _tag(number: int) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def field_header(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited field, as they stand in a file."""
    return _tag(number) + _varint(length)


def tensor_view(
    proto: onnx.TensorProto, buffer: Buffer, offset: int, length: int
) -> ir.TensorProtocol:
    """The tensor whose raw data are *length* bytes at *offset* of *buffer*.

    The array may be unaligned: ``graph.constant`` copies such an array when it is asked for.
    """
    dtype, dims = ir.DataType(proto.data_type), tuple(proto.dims)
    if dtype.bitwidth < 8:
        copy = onnx.TensorProto()
        copy.CopyFrom(proto)
        copy.raw_data = buffer[offset : offset + length].tobytes()
        array = ir.TensorProtoTensor(copy).numpy()
        return ir.Tensor(array, dtype=dtype, shape=ir.Shape(dims), name=proto.name)
    return view_of(buffer, offset, dtype, dims, proto.name)


def view_of(
    buffer: Buffer, offset: int, dtype: ir.DataType, dims: tuple[int, ...], name: str
) -> ir.TensorProtocol:
    """A tensor whose data is a view of *buffer*."""
    size = math.prod(dims) * dtype.bitwidth // 8
    part = np.frombuffer(buffer, dtype=np.uint8, count=size, offset=offset)
    array = part.view(dtype.numpy()).reshape(dims)
    return ir.Tensor(array, dtype=dtype, shape=ir.Shape(dims), name=name)
