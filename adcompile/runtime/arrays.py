"""A folder of recorded tensors: one ``.npy`` file per tensor, with names that are safe anywhere.

A sequence is an ``.npz`` file with its items in order, called ``0``, ``1`` …; an absent optional has no
file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np

from adcompile.errors import FormatError, InputError
from adcompile.manifest import check_bundle_path
from adcompile.runtime.executor import Array
from adcompile.runtime.feeds import read_arrays
from adcompile.runtime.narrow import NARROW_BITS, narrow_dtype

# our own files, and names that Windows keeps for devices
_RESERVED = frozenset({"detections", "heatmap", "con", "nul", "aux", "prn"})
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def safe_names(names: Iterable[str]) -> dict[str, str]:
    """A ``.npy`` file name for each name: cleaned, and numbered where two would clash."""
    found: dict[str, str] = {}
    taken = set(_RESERVED)
    for index, name in enumerate(names):
        plain = _clean(name)[:60] or "output"
        readable, number = plain, index
        while readable.casefold() in taken:
            readable, number = f"{plain}_{number}", number + 1
        taken.add(readable.casefold())
        found[name] = readable + ".npy"
    return found


def _clean(name: str) -> str:
    return _UNSAFE.sub("_", name).strip("_-")


def file_name(index: int, name: str) -> str:
    """``003_image.npy``: the number makes it unique, the readable rest is cleaned and cut."""
    readable = _clean(name)[:40]
    return f"{index:03d}_{readable}.npy" if readable else f"{index:03d}.npy"


def save_array(path: Path, array: Array) -> int:
    """Write one ``.npy`` file; returns its size. Raises InputError when the disk refuses.

    A type that numpy lacks (bfloat16) is kept as a record with one field of that name, so that
    plain numpy can read the bits and say what they are.
    """
    array = _as_record(array)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            np.lib.format.write_array(
                stream, np.ascontiguousarray(array) if array.shape else array
            )
        return path.stat().st_size
    except OSError as error:
        raise InputError(
            "cannot write a recorded tensor", where=str(path), why=error.strerror or str(error)
        ) from error


def _as_record(array: Array) -> Array:
    if str(array.dtype) in NARROW_BITS:
        return array.view([(str(array.dtype), NARROW_BITS[str(array.dtype)])])
    return array


def _from_record(array: Array) -> Array:
    field = next(iter(array.dtype.fields or {}), "")
    return array.view(narrow_dtype(field)) if field in NARROW_BITS else array


def save_value(path: Path, value: object) -> Path | None:
    """Write a tensor, or a sequence of them (a list); returns the file, None for an absent optional.
    *path* ends in ``.npy``."""
    if value is None:
        return None
    if not isinstance(value, list):
        save_array(path, cast(Array, value))
        return path
    items = {str(i): _as_record(item) for i, item in enumerate(cast("list[Array]", value))}
    file = path.with_suffix(".npz")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, allow_pickle=False, **items)
    except OSError as error:
        raise InputError(
            "cannot write a recorded sequence", where=str(file), why=error.strerror or str(error)
        ) from error
    return file


def open_value(root: Path, name: str) -> Array:
    """What :func:`save_value` wrote as file *name* ("" for an absent optional): an array, a list of
    arrays or None, under the type of an array as everywhere. Raises FormatError when it is damaged."""
    if not name:
        return cast(Array, None)
    if not name.endswith(".npz"):
        return open_array(root, name)
    items = read_arrays(root / check_bundle_path(name))
    if set(items) != {str(i) for i in range(len(items))}:
        raise FormatError("recorded sequence has odd items", where=name, why=", ".join(items))
    return cast(Array, [_from_record(items[str(i)]) for i in range(len(items))])


def open_array(root: Path, name: str) -> Array:
    """A recorded tensor of *root*, memory-mapped. Raises FormatError when it is damaged."""
    path = root / check_bundle_path(name)
    try:
        if path.stat().st_size == 0:
            raise ValueError("empty file")
        loaded: object = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
        raise FormatError("recorded tensor cannot be read", where=name, why=str(error)) from error
    if not isinstance(loaded, np.ndarray):
        raise FormatError("recorded tensor is not a .npy file", where=name)
    return _from_record(cast(Array, loaded))
