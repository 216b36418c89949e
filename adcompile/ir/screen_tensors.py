"""Check tensors of a model file: declared sizes, stored bytes, external data, sparse ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from adcompile.errors import ModelError

MAX_RANK = 64
MAX_TENSOR_BYTES = 1 << 36  # 64 GiB: a declared tensor above this is an attack or a mistake
MAX_DENSE_BYTES = 1 << 28  # sparse initializers are made dense up to this size

# bits per element; None where the number of bytes is not fixed by the shape
BITS: dict[int, int | None] = {
    onnx.TensorProto.FLOAT: 32,
    onnx.TensorProto.UINT8: 8,
    onnx.TensorProto.INT8: 8,
    onnx.TensorProto.UINT16: 16,
    onnx.TensorProto.INT16: 16,
    onnx.TensorProto.INT32: 32,
    onnx.TensorProto.INT64: 64,
    onnx.TensorProto.STRING: None,
    onnx.TensorProto.BOOL: 8,
    onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.DOUBLE: 64,
    onnx.TensorProto.UINT32: 32,
    onnx.TensorProto.UINT64: 64,
    onnx.TensorProto.COMPLEX64: 64,
    onnx.TensorProto.COMPLEX128: 128,
    onnx.TensorProto.BFLOAT16: 16,
}

# typed data field of a TensorProto, how many entries it holds per element
_FIELDS: dict[int, tuple[str, int]] = {
    onnx.TensorProto.FLOAT: ("float_data", 1),
    onnx.TensorProto.COMPLEX64: ("float_data", 2),
    onnx.TensorProto.INT64: ("int64_data", 1),
    onnx.TensorProto.STRING: ("string_data", 1),
    onnx.TensorProto.DOUBLE: ("double_data", 1),
    onnx.TensorProto.COMPLEX128: ("double_data", 2),
    onnx.TensorProto.UINT32: ("uint64_data", 1),
    onnx.TensorProto.UINT64: ("uint64_data", 1),
    onnx.TensorProto.UINT8: ("int32_data", 1),
    onnx.TensorProto.INT8: ("int32_data", 1),
    onnx.TensorProto.UINT16: ("int32_data", 1),
    onnx.TensorProto.INT16: ("int32_data", 1),
    onnx.TensorProto.INT32: ("int32_data", 1),
    onnx.TensorProto.BOOL: ("int32_data", 1),
    onnx.TensorProto.FLOAT16: ("int32_data", 1),
    onnx.TensorProto.BFLOAT16: ("int32_data", 1),
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    ``origin`` is how messages call it; ``folder`` is where external data must lie (None: it is
    refused); ``places`` holds offset and length of weights that stayed in the model file.
    """

    origin: str
    folder: Path | None = None
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, "tuple[int, int]"])


def check_declared(value: onnx.ValueInfoProto, where: str) -> None:
    """Refuse negative or absurd dimensions in a declared input or output."""
    if not value.type.HasField("tensor_type"):
        return
    tensor = value.type.tensor_type
    dims = [d.dim_value for d in tensor.shape.dim if d.HasField("dim_value")]
    _check_size(dims, BITS.get(tensor.elem_type) or 8, f"{where}, value {value.name!r}")


def _check_size(dims: Sequence[int], bits: int, where: str) -> int:
    """Number of elements; refuses negative, too many, or too large dimensions."""
    if len(dims) > MAX_RANK:
        raise ModelError(f"tensor has {len(dims)} dimensions", where=where)
    negative = next((d for d in dims if d < 0), None)
    if negative is not None:
        raise ModelError(
            f"dimension {negative} is negative",
            where=where,
            fix="export with named dynamic dimensions instead of -1",
        )
    count = math.prod(dims)
    if count * bits // 8 > MAX_TENSOR_BYTES:
        raise ModelError(
            "tensor is too large",
            where=where,
            why=f"shape {list(dims)} needs {count * bits // 8:,} bytes; "
            f"the limit is {MAX_TENSOR_BYTES:,}",
        )
    return count


def check_tensor(
    tensor: onnx.TensorProto, source: Source, where: str, *, held: int | None = None
) -> None:
    """Compare a tensor's shape with the bytes it brings, in the file or outside.

    *held* is the length of raw data that was left in the file.
    """
    where = f"{where}: tensor {tensor.name!r}"
    if tensor.data_type not in onnx.TensorProto.DataType.values():
        raise ModelError(f"unknown element type {tensor.data_type}", where=where)
    if tensor.data_type == onnx.TensorProto.UNDEFINED:
        raise ModelError("tensor has no element type", where=where)
    if tensor.HasField("segment"):
        raise ModelError("segmented tensors are not supported", where=where)
    bits = BITS.get(tensor.data_type, 8)
    count = _check_size(tensor.dims, bits or 8, where)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        _check_external(tensor, count, where, source.folder)
        return
    if tensor.data_type not in BITS and held is None:
        return  # packed 2-, 4-, 6- and 8-bit types: onnx_ir checks them when they are read
    if held is not None or tensor.HasField("raw_data"):
        have = len(tensor.raw_data) if held is None else held
        _check_raw(tensor, have, count, where)
        return
    name, per = _FIELDS[tensor.data_type]
    entries = len(getattr(tensor, name))
    if entries != count * per:
        raise ModelError(
            "tensor data has the wrong size",
            where=where,
            why=f"shape {list(tensor.dims)} needs {count * per} entries in {name}, "
            f"there are {entries}",
            fix="export the model again; the file is damaged",
        )


def _check_raw(tensor: onnx.TensorProto, have: int, count: int, where: str) -> None:
    width = ir.DataType(tensor.data_type).bitwidth if tensor.data_type != _STRING else 0
    want = (count * width + 7) // 8 if width else -1
    if have != want:
        raise ModelError(
            "tensor data has the wrong size",
            where=where,
            why=f"shape {list(tensor.dims)} needs {want} bytes, there are {have}",
            fix="export the model again; the file is damaged",
        )


_STRING = onnx.TensorProto.STRING


def _check_external(tensor: onnx.TensorProto, count: int, where: str, folder: Path | None) -> None:
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ModelError(
            "model refers to external data",
            where=where,
            why="it was given as bytes, without a folder",
            fix="load it from its file",
        )
    path = check_external_path(location, folder, where)
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries["length"]) if "length" in entries else None
    except ValueError as error:
        raise ModelError("external data offset or length is not a number", where=where) from error
    bits = BITS.get(tensor.data_type)
    if bits is None:
        if tensor.data_type == onnx.TensorProto.STRING:
            raise ModelError("strings cannot be stored as external data", where=where)
        bits = 4
    need = count * bits // 8
    have = path.stat().st_size
    exact = tensor.data_type in BITS
    if offset < 0 or (length is not None and (length < need or (exact and length != need))):
        raise ModelError(
            "external data has the wrong size",
            where=where,
            why=f"shape {list(tensor.dims)} needs {need} bytes, entry says "
            f"offset {offset}, length {length}",
        )
    if offset + need > have:
        raise ModelError(
            "external data file is too short",
            where=f"{where}, {location}",
            why=f"bytes {offset} to {offset + need} are wanted, the file has {have}",
            fix="copy the data file again; it is truncated or belongs to another model",
        )


def check_external_path(location: str, folder: Path, where: str) -> Path:
    """The data file, which must be a plain file inside *folder*: no link of any kind."""
    pure = PurePosixPath(location.replace("\\", "/"))
    fix = "put the data file beside the model and save the model with a plain relative name"
    unsafe = (
        not location
        or "\0" in location
        or pure.is_absolute()
        or ".." in pure.parts
        or not pure.parts
        or ":" in pure.parts[0]
    )
    if unsafe:
        raise ModelError(
            "external data lies outside the model's folder",
            where=where,
            why=f"location {location!r}",
            fix=fix,
        )
    path = folder
    for part in pure.parts:
        path = path / part
        if path.is_symlink():
            raise ModelError(
                "external data is reached through a symbolic link",
                where=where,
                why=f"location {location!r}",
                fix="copy the file itself into the model's folder",
            )
    if not path.is_file():
        raise ModelError(
            "external data file is missing",
            where=where,
            why=f"no file {location!r} beside the model",
            fix="copy it there",
        )
    if path.stat().st_nlink > 1:
        raise ModelError(
            "external data file is a hard link",
            where=where,
            why=f"{location!r} has another name elsewhere, which may be a file not meant for you",
            fix="copy it (cp FILE COPY; mv COPY FILE) and try again",
        )
    return path


def make_dense(graph: onnx.GraphProto, stored: set[str], where: str) -> None:
    """Replace sparse initializers by dense ones: the IR would drop them without a word."""
    for sparse in graph.sparse_initializer:
        name = sparse.values.name
        at = f"{where}, sparse initializer {name!r}"
        if not name or name in stored:
            raise ModelError("sparse initializer without a name of its own", where=at)
        bits = BITS.get(sparse.values.data_type)
        if bits is None or bits % 8:
            raise ModelError("sparse initializer has an unsupported type", where=at)
        check_tensor(sparse.values, Source(at), at)
        check_tensor(sparse.indices, Source(at), at)
        count = _check_size(sparse.dims, bits, at)
        if count * bits // 8 > MAX_DENSE_BYTES:
            raise ModelError("sparse initializer is too large to be made dense", where=at)
        graph.initializer.append(_dense(sparse, count, at))
        stored.add(name)
    del graph.sparse_initializer[:]


def _dense(sparse: onnx.SparseTensorProto, count: int, where: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(sparse.values)
    places = numpy_helper.to_array(sparse.indices)
    dims = tuple(sparse.dims)
    fits = places.ndim == 1 or (places.ndim == 2 and places.shape[1] == len(dims))
    if not fits or len(places) != len(values):
        raise ModelError("sparse initializer's indices do not fit its values", where=where)
    limits = np.asarray([count] if places.ndim == 1 else dims)
    flat = places.reshape(len(values), -1)
    if len(values) and (bool((flat < 0).any()) or bool((flat >= limits).any())):
        raise ModelError("sparse initializer has an index outside its shape", where=where)
    where_flat = flat[:, 0] if places.ndim == 1 else np.ravel_multi_index(tuple(flat.T), dims)
    dense = np.zeros(count, dtype=values.dtype)
    dense[where_flat] = values
    return numpy_helper.from_array(dense.reshape(dims), sparse.values.name)
