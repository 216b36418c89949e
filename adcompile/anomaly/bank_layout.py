"""Prepare a bank for exact search: int8 copies, principal axes, row order, bounding boxes.

Everything here happens once, in double precision, when a bundle is compiled. The search
(``search.py`` and ``backends/host/native``) only reads the result; why it is exact is shown in
``bank_bounds.cpp``. With ``u = scale·(row − centre)`` (``scale`` a power of two, the longest ``u``
has length at most 1) the arrays are, for M rows in P = M/16 panels:

==============  =======================  ==========================================================
name            dtype, shape             content
==============  =======================  ==========================================================
rows            f4 [M, ld]               the float32 rows, reordered, zero-padded to ``ld`` columns
order           i4 [M]                   original number of each stored row
centre          f4 [ld]                  what is subtracted
whole           i1 [P, ld/4, 64]         per 16 rows, u in int8, 4 columns of 16 rows side by side
whole_terms     f4 [P, 3, 16]            step s of the int8, s²·|int8|² − e², error length e (up)
numbers         f8 [4]                   scale, longest |u| and largest e (up), step for queries
==============  =======================  ==========================================================

and, where most rows can be skipped by their coordinates along principal axes (``bank_axes.py``),
with A axes, G groups of 256 rows and ``cs`` = columns padded to a multiple of 64:

==============  =======================  ==========================================================
axes            f4 [A/16, ld, 16]        orthonormal axes, 16 side by side; unused ones zero
boxes           f4 [G/16, 18, 16]        of groups: low and high of 8 coordinates and of the length
                                         of the rest beyond them
head            i1 [P, A/4, 64]          like ``whole``, of the A coordinates
head_terms      f4 [P, 4, 16]            step s, s²·|int8|² + r² − e², e, r: length of the rest
row_codes       i1 [M, cs]               the int8 of ``whole``, row by row
row_terms       f4 [M, 4]                the terms of ``whole``, row by row, and zero
==============  =======================  ==========================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from adcompile.anomaly.bank_axes import BOX, GROUP, choose_axes, tree_order
from adcompile.anomaly.bank_int8 import (
    FAR,
    LANES,
    Int8Copy,
    code_panels,
    int8_copy,
    term_panels,
    up,
)

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Array = NDArray[np.generic]

_CHUNK = 4096


def stride_of(columns: int) -> int:
    """Columns padded to a multiple of 32 floats: rows start on 64-byte boundaries."""
    return -(-columns // 32) * 32


def code_stride_of(columns: int) -> int:
    """Columns padded to a multiple of 64 int8 codes."""
    return -(-columns // 64) * 64


def lay_out(rows: F32, axes: int | None = None) -> dict[str, Array]:
    """All sections for ``rows`` [M, D], float32, finite, M ≥ 1, D ≥ 1; *axes* as ``prepare_bank``."""
    count, columns = rows.shape
    ld = stride_of(columns)
    centre = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = _scale(rows, centre)
    basis = choose_axes(rows, centre, scale, axes)
    order: NDArray[np.int64] = np.arange(count, dtype=np.int64)
    along: dict[str, Array] = {}
    errors: list[F32] = []
    if basis is not None:
        coordinates, lengths = _project(rows, centre, scale, basis)
        order = tree_order(coordinates[:, :LANES])
        coordinates, lengths = coordinates[order], lengths[order]
        head = int8_copy(coordinates, _rest(coordinates, lengths, basis.shape[1]))
        along = {
            "axes": _axes_panels(basis, ld),
            "boxes": _box_panels(_boxes(coordinates, lengths)),
            "head": code_panels(head.codes),
            "head_terms": term_panels(head.terms),
        }
        errors.append(head.terms[2])
    padded = np.zeros((count, ld), np.float32)
    padded[:, :columns] = rows[order]
    wide = np.pad(centre, (0, ld - columns))
    whole, longest, step = _whole(padded, wide, scale)
    errors.append(whole.terms[2])
    if basis is not None:
        along["row_codes"] = np.pad(whole.codes, ((0, 0), (0, code_stride_of(columns) - ld)))
        along["row_terms"] = np.ascontiguousarray(np.pad(whole.terms, ((0, 1), (0, 0))).T)
    return {
        "rows": padded,
        "order": order.astype(np.int32),
        "centre": wide,
        "whole": code_panels(whole.codes),
        "whole_terms": term_panels(whole.terms),
        **along,
        "numbers": np.array([scale, longest, max(float(e.max()) for e in errors), step]),
    }


def _chunks(rows: F32, centre: F32, scale: float) -> Iterator[tuple[slice, F64]]:
    """Parts of the centred, scaled rows in double precision."""
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, min(len(rows), start + _CHUNK))
        yield part, (rows[part].astype(np.float64) - centre.astype(np.float64)) * scale


def _scale(rows: F32, centre: F32) -> float:
    """The power of two that brings the longest centred row to at most 1, within 2^±100."""
    longest = max(float(np.einsum("ij,ij->i", u, u).max()) for _, u in _chunks(rows, centre, 1.0))
    if longest == 0.0:
        return 1.0
    exponent = math.frexp(math.sqrt(longest))[1]
    return math.ldexp(1.0, min(100, max(-100, -exponent)))


def _project(rows: F32, centre: F32, scale: float, basis: F64) -> tuple[F64, F64]:
    """Coordinates [M, A] and squared lengths [M] of the centred rows."""
    coordinates = np.empty((len(rows), basis.shape[1]))
    lengths = np.empty(len(rows))
    for part, u in _chunks(rows, centre, scale):
        coordinates[part] = u @ basis
        lengths[part] = np.einsum("ij,ij->i", u, u)
    return coordinates, lengths


def _whole(padded: F32, centre: F32, scale: float) -> tuple[Int8Copy, float, float]:
    """The copy of all columns, the longest row's length (up), and the step for queries."""
    count, ld = padded.shape
    codes = np.empty((count, ld), np.int8)
    terms = np.empty((3, count), np.float32)
    longest = 0.0
    for part, u in _chunks(padded, centre, scale):
        copy = int8_copy(u)
        codes[part], terms[:, part] = copy.codes, copy.terms
        longest = max(longest, float(np.einsum("ij,ij->i", u, u).max()))
    # Nearly all queries fit into ±127 such steps if they are like the rows; others get their own.
    step = 1.1 * float(np.quantile(terms[0], 0.99))
    return Int8Copy(codes, terms), float(up(np.sqrt(np.float64(longest)))), _narrow(step)


def _narrow(step: float) -> float:
    return float(np.float32(min(1.0, max(2.0**-20, step))))


def _rest(coordinates: F64, lengths: F64, used: int) -> F64:
    """Length of what the first ``used`` coordinates leave over."""
    inside = np.einsum("ij,ij->i", coordinates[:, :used], coordinates[:, :used])
    # The subtraction cancels; its error is far below 1e-14 of the squared length.
    return np.asarray(np.sqrt(np.maximum(lengths - inside, 0.0)))


def _boxes(coordinates: F64, lengths: F64) -> F32:
    """Low and high [G, 2, 9] over each group, rounded outwards."""
    points = np.column_stack([coordinates[:, :BOX], _rest(coordinates, lengths, BOX)])
    starts = np.arange(0, len(points), GROUP)
    low = np.minimum.reduceat(points, starts).astype(np.float32)
    high = np.maximum.reduceat(points, starts).astype(np.float32)
    margin = np.float32(1e-6 * np.sqrt(lengths.max()))  # rounding of coordinates and rests
    return np.stack([low - margin, high + margin], axis=1)


def _box_panels(boxes: F32) -> F32:
    """[n, 2, 9] to [n/16, 18, 16]: low and high of coordinate 0, of coordinate 1, …"""
    count = -(-len(boxes) // LANES)
    out = np.empty((count * LANES, BOX + 1, 2), np.float32)
    out[:, :, 0], out[:, :, 1] = FAR, -FAR
    out[: len(boxes)] = boxes.transpose(0, 2, 1)
    flat = out.reshape(count, LANES, 2 * (BOX + 1))
    return np.ascontiguousarray(flat.transpose(0, 2, 1))


def _axes_panels(basis: F64, ld: int) -> F32:
    columns, used = basis.shape
    out = np.zeros((ld, used), np.float32)
    out[:columns] = basis
    return np.ascontiguousarray(out.reshape(ld, used // LANES, LANES).transpose(1, 0, 2))
