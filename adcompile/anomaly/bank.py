"""A memory bank prepared for exact nearest-neighbour search, and its file.

``prepare_bank`` lays the rows out (``bank_layout.py``); ``pack_bank`` / ``write_bank`` store them in
the container of ``sections.py``; ``read_bank`` checks everything; ``Bank.original_rows`` gives back
the float32 rows in their original order, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from adcompile.anomaly.bank_axes import BOX, GROUP
from adcompile.anomaly.bank_int8 import LANES
from adcompile.anomaly.bank_layout import code_stride_of, lay_out, stride_of
from adcompile.anomaly.sections import Container, pack_container, read_container
from adcompile.errors import FormatError, InputError

KIND = "knn-l2"
MAX_COLUMNS = 65536
MAX_ROWS = 2**31 - 1024

F32 = NDArray[np.float32]
Array = NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Bank:
    """A prepared bank. ``sections`` are the arrays of ``bank_layout.py``, read-only."""

    columns: int
    sections: Mapping[str, Array]
    contract: str = ""
    producer: bytes = field(default=bytes(32))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.sections["order"].shape[0])

    def original_rows(self) -> F32:
        """The float32 rows [M, D] as they were given, in their original order."""
        out = np.empty((self.rows, self.columns), np.float32)
        out[self.sections["order"].astype(np.intp)] = self.sections["rows"][:, : self.columns]
        return out


def prepare_bank(
    rows: Array, *, contract: str = "", producer: bytes = bytes(32), axes: int | None = None
) -> Bank:
    """Lay out ``rows`` [M, D] for search.

    *axes*: how many principal axes rows are first compared along, one of ``bank_axes.COUNTS``, or 0
    for a search that compares all columns at once. By default what is estimated to be fastest; the
    neighbours found are the same. Raises InputError unless the array is two-dimensional, float32
    without loss, finite, not empty.
    """
    checked = check_vectors(rows, "bank")
    if not 1 <= checked.shape[1] <= MAX_COLUMNS:
        raise InputError(
            f"bank has {checked.shape[1]} columns", why=f"1 to {MAX_COLUMNS} can be searched"
        )
    if not 1 <= len(checked) <= MAX_ROWS:
        raise InputError(f"bank has {len(checked)} rows", why=f"1 to {MAX_ROWS} can be searched")
    sections = lay_out(checked, axes) | {"columns": np.array([checked.shape[1]], np.int32)}
    for array in sections.values():
        array.flags.writeable = False
    return Bank(checked.shape[1], sections, contract, producer)


def check_vectors(vectors: Array, what: str, *, finite: bool = True) -> F32:
    """``vectors`` as contiguous float32 [n, D], finite unless that is left to others; or InputError."""
    if vectors.ndim != 2:
        raise InputError(f"{what} has {vectors.ndim} axes", why="expected [rows, columns]")
    if vectors.dtype != np.float32:
        raise InputError(
            f"{what} is {vectors.dtype}", why="distances are defined on float32", fix="convert it"
        )
    checked = np.ascontiguousarray(vectors, dtype=np.float32)
    if finite:
        good = np.isfinite(checked).all(axis=1)
        if not good.all():
            raise InputError(
                f"{what} holds NaN or an infinity", where=f"row {int(np.argmin(good))}"
            )
    return checked


def pack_bank(bank: Bank) -> bytes:
    """The bytes of a bank file; equal banks give equal bytes."""
    return pack_container(Container(KIND, bank.sections, bank.contract, bank.producer))


def write_bank(path: Path, bank: Bank) -> None:
    """Write a bank file."""
    path.write_bytes(pack_bank(bank))


def read_bank(source: Path | bytes) -> Bank:
    """Read and check a bank file. Raises FormatError naming the field at fault."""
    where = "bank" if isinstance(source, bytes) else source.name
    content = read_container(source)
    if content.kind != KIND:
        _refuse(where, "kind", f"{content.kind!r}, expected {KIND!r}")
    _check_shapes(where, content.sections)
    columns = int(content.sections["columns"][0])
    _check_values(where, content.sections, columns)
    return Bank(columns, content.sections, content.contract, content.producer)


def _refuse(where: str, name: str, why: str) -> NoReturn:
    raise FormatError(f"bank file refused: {name}", where=where, why=why)


_Sizes = Mapping[str, int]
_SHAPES: Mapping[str, tuple[str, Callable[[_Sizes], tuple[int, ...]]]] = {
    "rows": ("<f4", lambda n: (n["rows"], n["ld"])),
    "order": ("<i4", lambda n: (n["rows"],)),
    "centre": ("<f4", lambda n: (n["ld"],)),
    "whole": ("|i1", lambda n: (n["panels"], n["ld"] // 4, 4 * LANES)),
    "whole_terms": ("<f4", lambda n: (n["panels"], 3, LANES)),
    "numbers": ("<f8", lambda n: (4,)),
    "columns": ("<i4", lambda n: (1,)),
}
_AXES_SHAPES: Mapping[str, tuple[str, Callable[[_Sizes], tuple[int, ...]]]] = {
    "axes": ("<f4", lambda n: (n["axes"], n["ld"], LANES)),
    "boxes": ("<f4", lambda n: (-(-n["rows"] // (GROUP * LANES)), 2 * BOX + 2, LANES)),
    "head": ("|i1", lambda n: (n["panels"], n["axes"] * 4, 4 * LANES)),
    "head_terms": ("<f4", lambda n: (n["panels"], 4, LANES)),
    "row_codes": ("|i1", lambda n: (n["rows"], n["cs"])),
    "row_terms": ("<f4", lambda n: (n["rows"], 4)),
}


def _check_shapes(where: str, sections: Mapping[str, Array]) -> None:
    """Every section is there, of the dtype and shape that follow from rows, columns and axes."""
    expected = {**_SHAPES, **(_AXES_SHAPES if "axes" in sections else {})}
    if set(sections) != set(expected):
        odd = sorted(set(sections) ^ set(expected))
        _refuse(where, odd[0], "section missing or unknown")
    for name, (dtype, _) in expected.items():
        if sections[name].dtype.str != dtype:
            _refuse(where, f"{name}.dtype", f"{sections[name].dtype.str}, expected {dtype}")
    if sections["columns"].shape != (1,) or sections["rows"].ndim != 2:
        _refuse(where, "columns.shape", "expected one number, and rows with two axes")
    rows, columns = sections["rows"].shape[0], int(sections["columns"][0])
    if not 1 <= columns <= MAX_COLUMNS or rows > MAX_ROWS:
        _refuse(where, "columns", f"{rows} rows × {columns} columns cannot be searched")
    axes = int(sections["axes"].shape[0]) if "axes" in sections else 0
    if axes > 16:
        _refuse(where, "axes.shape", f"{axes} blocks of axes; 1 to 16 are allowed")
    sizes = {
        "rows": rows, "ld": stride_of(columns), "cs": code_stride_of(columns), "axes": axes,
        "panels": -(-rows // LANES),
    }  # fmt: skip
    for name, (_, shape) in expected.items():
        if sections[name].shape != shape(sizes):
            _refuse(where, f"{name}.shape", f"{sections[name].shape}, expected {shape(sizes)}")


def _check_values(where: str, sections: Mapping[str, Array], columns: int) -> None:
    """``order`` is a permutation, numbers are finite, the padding of rows is zero."""
    order = sections["order"]
    rows = len(order)
    if order.min() < 0 or order.max() >= rows or len(np.unique(order)) != rows:
        _refuse(where, "order", f"not a permutation of 0 … {rows - 1}")
    for name, section in sections.items():
        if section.dtype.kind == "f" and not np.isfinite(section).all():
            _refuse(where, name, "holds NaN or an infinity")
    if sections["rows"][:, columns:].any():
        _refuse(where, "rows", "padding columns are not zero")
    scale = float(sections["numbers"][0])
    if not 2.0**-101 < scale < 2.0**101 or np.frexp(scale)[0] != 0.5:
        _refuse(where, "numbers", f"scale {scale} is not a power of two within 2^±100")
    numbers = sections["numbers"].astype(np.float64)
    if numbers[1:3].min() < 0:
        _refuse(where, "numbers", "negative length")
    if not 2.0**-20 <= numbers[3] <= 1:
        _refuse(where, "numbers", f"step of the queries {numbers[3]} is not within 2^-20 … 1")
