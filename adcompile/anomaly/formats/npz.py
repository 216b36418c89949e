"""Reading ``.npz`` archives of plain arrays with every size checked before memory is taken."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from adcompile.anomaly.formats.torch_file import check_members
from adcompile.errors import FormatError

Array = npt.NDArray[np.generic]
MAX_BYTES = 16 << 30
MAX_ARRAYS = 4096
MAX_GROWTH = 100
"""Trained numbers hardly compress: an archive that unfolds to more than this many times its size,
and to more than ``FREE_BYTES``, is refused."""
FREE_BYTES = 64 << 20


_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, ValueError, OSError, EOFError, KeyError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


def read_npz(path: Path) -> dict[str, Array]:
    """All arrays of an archive by name. Object arrays (pickles) are refused."""
    if not path.is_file():
        raise FormatError("no such file", where=str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, path)
        with np.load(path, allow_pickle=False) as loaded:
            return {name: np.asarray(loaded[name]) for name in loaded.files}
    except _DAMAGE as error:
        raise FormatError("not a readable .npz", where=str(path), why=str(error)) from error


def _check(archive: zipfile.ZipFile, path: Path) -> None:
    members = archive.infolist()
    claimed = sum(info.file_size for info in members)
    limit = min(MAX_BYTES, max(FREE_BYTES, MAX_GROWTH * path.stat().st_size))
    if len(members) > MAX_ARRAYS or claimed > limit:
        raise FormatError(
            "the .npz claims too much data",
            where=str(path),
            why=f"{len(members)} arrays, {claimed} bytes; allowed are {limit} bytes",
        )
    check_members(archive, str(path))
    for info in members:
        with archive.open(info) as file:
            version = npy.read_magic(file)
            reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = reader(file)
        if dtype.hasobject:
            raise FormatError(
                "the .npz holds pickled objects", where=f"{path}: {info.filename}", why=str(dtype)
            )
        if math.prod(shape) * dtype.itemsize > info.file_size:
            raise FormatError("an array is larger than its data", where=f"{path}: {info.filename}")


def write_npz(path: Path, arrays: dict[str, Array]) -> None:
    """Write a compressed archive whose bytes depend on the arrays only (no clock)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as file:
                npy.write_array(file, np.asarray(array, order="C"), allow_pickle=False)
