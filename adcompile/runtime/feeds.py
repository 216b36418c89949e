"""Input arrays: read from files, checked against what a bundle declares."""

from __future__ import annotations

import contextlib
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np

from adcompile.errors import FormatError, InputError, UsageError
from adcompile.manifest import TensorSpec
from adcompile.runtime.executor import Array

MAX_ARRAY_BYTES = 1 << 32
# what damaged files raise in numpy's and zipfile's readers
_LOAD_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    TypeError,
    KeyError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def describe(spec: TensorSpec) -> str:
    """``name: float32 [1, 3, "h", "w"]``, for messages."""
    return f"{spec.name}: {spec.dtype} [{', '.join(str(d) for d in spec.shape)}]"


def check_feeds(specs: Sequence[TensorSpec], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """*feeds* in the order of *specs*, each C-contiguous; names, dtypes and shapes must fit.

    A dimension's symbol must have one size throughout. Raises UsageError for names, InputError for
    dtypes and shapes.
    """
    known = [spec.name for spec in specs]
    strangers = [name for name in feeds if name not in known]
    missing = [name for name in known if name not in feeds]
    if strangers or missing:
        raise UsageError(
            "inputs do not fit the bundle",
            why="; ".join(
                text
                for text, names in (("unknown: ", strangers), ("missing: ", missing))
                if names
                for text in [text + ", ".join(names)]
            ),
            fix="it has " + "; ".join(describe(spec) for spec in specs),
        )
    symbols: dict[str, int] = {}
    return {spec.name: _value(spec, feeds[spec.name], symbols) for spec in specs}


def _value(spec: TensorSpec, value: object, symbols: dict[str, int]) -> Array:
    """One checked input. A sequence is a list of arrays, an absent optional None; ONNX Runtime
    takes both as they are, so they travel under the type of an array."""
    if spec.is_tensor:
        return _checked(spec, np.asarray(value), symbols)
    inner = spec.dtype.removeprefix("optional(")
    if value is None and inner != spec.dtype:
        return cast(Array, value)
    if inner.startswith("sequence("):
        element = inner.partition("(")[2].rstrip(")")
        if not isinstance(value, list | tuple):
            raise InputError(
                f"input {spec.name!r} is a sequence",
                why=f"a {type(value).__name__} was given",
                fix=f"give a list of {element} arrays",
            )
        items = [np.asarray(item) for item in cast("Sequence[object]", value)]
        if any(str(item.dtype) != element and element != "str" for item in items):
            raise InputError(
                f"input {spec.name!r} holds an array of the wrong type", fix="expected " + element
            )
        return cast(Array, items)
    return np.asarray(value)


def _checked(spec: TensorSpec, array: Array, symbols: dict[str, int]) -> Array:
    if str(array.dtype) != spec.dtype and spec.dtype != "str":
        raise InputError(
            f"input {spec.name!r} has the wrong type",
            why=f"it is {array.dtype}",
            fix="expected " + describe(spec),
        )
    fits = len(array.shape) == len(spec.shape)
    for size, wanted in zip(array.shape, spec.shape, strict=False):
        bound = wanted if isinstance(wanted, int) else symbols.setdefault(wanted, size)
        fits = fits and (bound == size or wanted == "?")
    if not fits:
        raise InputError(
            f"input {spec.name!r} has the wrong shape",
            why=f"it is {list(array.shape)}",
            fix="expected " + describe(spec),
        )
    return np.ascontiguousarray(array) if array.shape else array


def read_array(path: Path) -> Array:
    """One array from a ``.npy`` file; pickled objects are refused and sizes bounded.

    Raises InputError without the file, FormatError when its header and size do not fit.
    """
    with _reading(path, ".npy"), path.open("rb") as stream:
        return _array(stream, path.stat().st_size)


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an ``.npz`` file by name, with the same checks."""
    found: dict[str, Array] = {}
    with _reading(path, ".npz"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > MAX_ARRAY_BYTES:
            raise ValueError(f"more than {MAX_ARRAY_BYTES:,} bytes")
        for member in members:
            with archive.open(member) as stream:
                name = member.filename.removesuffix(".npy")
                found[name] = _array(stream, member.file_size)
    return found


@contextlib.contextmanager
def _reading(path: Path, kind: str) -> Generator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError("no such array file", where=str(path)) from error
    except _LOAD_ERRORS as error:
        raise FormatError(
            f"not a readable {kind} file", where=str(path), why=str(error) or type(error).__name__
        ) from error


def _array(stream: IO[bytes], size: int) -> Array:
    """Read one array after checking that its header promises what is there, and not more."""
    if size > MAX_ARRAY_BYTES:
        raise ValueError(f"more than {MAX_ARRAY_BYTES:,} bytes")
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"format version {version}")
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    wanted = math.prod(shape) * dtype.itemsize
    data = stream.read(wanted + 1) if wanted <= size else b""
    if len(data) != wanted:
        raise ValueError(f"its header promises {wanted:,} bytes of data")
    flat = np.frombuffer(bytearray(data), dtype=dtype)
    return flat.reshape(shape, order="F" if fortran else "C")
