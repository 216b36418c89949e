"""Input arrays: read from files, checked against what a bundle declares."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from adcompile.errors import FormatError, InputError, UsageError
from adcompile.manifest import TensorSpec
from adcompile.runtime.executor import Array

MAX_ARRAY_BYTES = 1 << 34
_LOAD_ERRORS = (OSError, ValueError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error)


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
    return {spec.name: _checked(spec, np.asarray(feeds[spec.name]), symbols) for spec in specs}


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
    """One array from a ``.npy`` file; pickled objects are refused and sizes bounded."""
    try:
        if path.stat().st_size > MAX_ARRAY_BYTES:
            raise FormatError("array file too large", where=str(path))
        with path.open("rb") as stream:
            array: object = np.lib.format.read_array(stream, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError("no such array file", where=str(path)) from error
    except (*_LOAD_ERRORS, MemoryError, OverflowError, TypeError) as error:
        raise FormatError(
            "not a readable .npy file", where=str(path), why=str(error) or type(error).__name__
        ) from error
    return cast(Array, array)


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an ``.npz`` file by name; pickled objects are refused and sizes bounded."""
    found: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > MAX_ARRAY_BYTES:
                raise FormatError("array file too large", where=str(path))
            for member in members:
                with archive.open(member) as stream:
                    array = np.lib.format.read_array(stream, allow_pickle=False)
                found[member.filename.removesuffix(".npy")] = cast(Array, array)
    except FileNotFoundError as error:
        raise InputError("no such array file", where=str(path)) from error
    except (*_LOAD_ERRORS, MemoryError, OverflowError, TypeError, NotImplementedError) as error:
        raise FormatError(
            "not a readable .npz file", where=str(path), why=str(error) or type(error).__name__
        ) from error
    return found
