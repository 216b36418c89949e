"""Prepare a bank for exact search: principal axes, row order, bounding boxes, int8 shadow.

Everything here happens once, in double precision, when a bundle is compiled. The search
(``search.py`` and ``backends/host/native``) only reads the result. With ``u = scale·(row − centre)``
(``scale`` a power of two, the longest ``u`` has length at most 1) the arrays are:

==============  =======================  ==========================================================
name            dtype, shape             content
==============  =======================  ==========================================================
rows            f4 [M, ld]               the float32 rows, reordered, zero-padded to ``ld`` columns
order           i4 [M]                   original number of each stored row
centre          f4 [ld]                  what is subtracted
axes            f4 [A/16, ld, 16]        A = 16 + T orthonormal axes, 16 side by side; unused ones zero
panels          f4 [P, 18, 16]           per 16 rows: squared length of u (rounded down), its first
                                         16 coordinates, length of the rest (rounded up)
tails           i1 [P, T/4, 64]          per 16 rows, int8 of coordinates 16 … 15+T, 4 of 16 rows
                                         side by side
tail_terms      f4 [P, 4, 16]            step of the int8, length of the rest beyond 16 coordinates,
                                         error length of the int8, length of the rest beyond all
                                         coordinates (lengths rounded up)
tail_sums       i4 [P, 16]               −128 · sum of the int8 values of `tails`
groups          f4 [G, 18, 16]           boxes of 16 panels: low and high of 8 coordinates and of
                                         the length of the rest beyond them
supers          f4 [S, 18, 16]           the same for 16 groups
shadow          i1 [P, ld/4, 64]         per 16 rows, int8 of u, 4 columns of 16 rows side by side
shadow_terms    f4 [P, 3, 16]            step s, s²·|int8|² − e², error length e (rounded up)
shadow_sums     i4 [P, 16]               −128 · sum of the int8 values
numbers         f8 [4]                   scale, longest |u| (rounded up), largest e, zero
==============  =======================  ==========================================================
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
Array = NDArray[np.generic]

LANES = 16
GROUP = 256
HEAD = 16
"""Axes bounded for 16 rows at once."""
BOX = 8
"""Axes of the bounding boxes."""
TAIL = 112
"""Further axes, kept as int8."""
FAR = np.float32(1e30)
"""Stands for "never near" in the padding of the last panel."""
_SAMPLE = 16384
_CHUNK = 4096


def stride_of(columns: int) -> int:
    """Columns padded to a multiple of 32 floats: rows start on 64-byte boundaries."""
    return -(-columns // 32) * 32


def lay_out(rows: F32) -> dict[str, Array]:
    """All sections for ``rows`` [M, D], float32, finite, M ≥ 1, D ≥ 1."""
    count, columns = rows.shape
    centre = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = _scale(rows, centre)
    basis = principal_axes(rows, centre, scale, HEAD + TAIL)
    coordinates, lengths = _project(rows, centre, scale, basis)
    order = tree_order(coordinates[:, :HEAD])
    coordinates, lengths = coordinates[order], lengths[order]
    ld = stride_of(columns)
    panels = -(-count // LANES)
    padded = np.zeros((count, ld), np.float32)
    padded[:, :columns] = rows[order]
    shadow, terms, sums = _shadow(padded, centre, scale, panels)
    boxes = _boxes(coordinates, lengths)
    return {
        "rows": padded,
        "order": order.astype(np.int32),
        "centre": np.pad(centre, (0, ld - columns)),
        "axes": _axes_panels(basis, ld),
        "panels": _panels(coordinates, lengths, panels),
        **_tails(coordinates, lengths, panels),
        "groups": _box_panels(boxes),
        "supers": _box_panels(_merge(boxes)),
        "shadow": shadow,
        "shadow_terms": terms,
        "shadow_sums": sums,
        "numbers": np.array(
            [scale, _up(np.sqrt(lengths.max(initial=0.0))), float(terms[:, 2].max()), 0.0]
        ),
    }


def _up(values: F64 | np.float64) -> Array:
    """Round to float32 upwards, and past the errors of the double arithmetic behind it."""
    return np.nextafter((values * (1 + 1e-12)).astype(np.float32), np.float32(np.inf))


def _down(values: F64) -> F32:
    low = np.nextafter((values * (1 - 1e-12)).astype(np.float32), np.float32(-np.inf))
    return np.maximum(low, np.float32(0)).astype(np.float32)


def _centred(rows: F32, centre: F32, scale: float) -> F64:
    return (rows.astype(np.float64) - centre.astype(np.float64)) * scale


def _scale(rows: F32, centre: F32) -> float:
    """The power of two that brings the longest centred row to at most 1, within 2^±100."""
    longest = 0.0
    for start in range(0, len(rows), _CHUNK):
        u = _centred(rows[start : start + _CHUNK], centre, 1.0)
        longest = max(longest, float(np.einsum("ij,ij->i", u, u).max()))
    if longest == 0.0:
        return 1.0
    exponent = math.frexp(math.sqrt(longest))[1]
    return math.ldexp(1.0, min(100, max(-100, -exponent)))


def principal_axes(rows: F32, centre: F32, scale: float, count: int) -> F64:
    """Orthonormal columns [D, count] spanning the directions of most variance.

    Any orthonormal columns keep the search exact; good ones make it fast. So a deterministic,
    evenly spaced sample of rows is enough. When D < count the missing columns are zero.
    """
    step = max(1, -(-len(rows) // _SAMPLE))
    sample = ((rows[::step] - centre) * np.float32(scale)).astype(np.float32)
    columns = rows.shape[1]
    kept = min(count, columns)
    covariance = (sample.T @ sample).astype(np.float64)
    _, vectors = np.linalg.eigh(covariance)
    basis, _ = np.linalg.qr(vectors[:, ::-1][:, :kept])
    return np.pad(basis, ((0, 0), (0, count - kept)))


def _project(rows: F32, centre: F32, scale: float, basis: F64) -> tuple[F64, F64]:
    """Coordinates [M, A] and squared lengths [M] of the centred rows."""
    coordinates = np.empty((len(rows), basis.shape[1]))
    lengths = np.empty(len(rows))
    for start in range(0, len(rows), _CHUNK):
        u = _centred(rows[start : start + _CHUNK], centre, scale)
        coordinates[start : start + _CHUNK] = u @ basis
        lengths[start : start + _CHUNK] = np.einsum("ij,ij->i", u, u)
    return coordinates, lengths


def tree_order(points: F64) -> NDArray[np.int64]:
    """An order in which runs of 256, and in them runs of 16, are compact.

    Recursive halving along the coordinate of largest variance; every run is full but the last.
    """
    order = np.arange(len(points))
    pending = [(0, len(points))]
    while pending:
        start, stop = pending.pop()
        size = stop - start
        if size <= LANES:
            continue
        unit = GROUP if size > GROUP else LANES
        half = -(-size // unit) // 2 * unit
        if half == 0:
            continue
        part = points[order[start:stop]]
        axis = int(part.var(axis=0).argmax())
        split = np.argpartition(part[:, axis], half - 1, kind="introselect")
        order[start:stop] = order[start:stop][split]
        pending += [(start, start + half), (start + half, stop)]
    for start in range(0, len(points), LANES):
        order[start : start + LANES].sort()
    return order


def _rest(coordinates: F64, lengths: F64, used: int) -> F64:
    """Length of what the first ``used`` coordinates leave over."""
    inside = np.einsum("ij,ij->i", coordinates[:, :used], coordinates[:, :used])
    # The subtraction cancels; its error is far below 1e-14 of the squared length.
    return np.asarray(np.sqrt(np.maximum(lengths - inside, 0.0) + 1e-14 * lengths))


def _in_panels(values: Array, panels: int, fill: np.float32) -> F32:
    """[M] to [P, 16]."""
    out = np.full(panels * LANES, fill, np.float32)
    out[: len(values)] = values
    return out.reshape(panels, LANES)


def _panels(coordinates: F64, lengths: F64, panels: int) -> F32:
    out = np.zeros((panels, HEAD + 2, LANES), np.float32)
    out[:, 0] = _in_panels(_down(lengths), panels, FAR)
    for axis in range(HEAD):
        out[:, 1 + axis] = _in_panels(coordinates[:, axis], panels, np.float32(0))
    rest = _up(_rest(coordinates, lengths, HEAD))
    out[:, HEAD + 1] = _in_panels(rest, panels, np.float32(0))
    return out


def _tails(coordinates: F64, lengths: F64, panels: int) -> dict[str, Array]:
    codes, steps, errors = _int8(coordinates[:, HEAD:])
    terms = np.zeros((4, panels * LANES), np.float32)
    rows = slice(0, len(coordinates))
    terms[0, rows] = steps
    terms[1, rows] = _up(_rest(coordinates, lengths, HEAD))
    terms[2, rows] = errors
    terms[3, rows] = _up(_rest(coordinates, lengths, HEAD + TAIL))
    return {
        "tails": _interleaved(codes, panels),
        "tail_terms": _side_by_side(terms),
        "tail_sums": _sums(codes, panels),
    }


def _int8(values: F64) -> tuple[NDArray[np.int8], F32, F32]:
    """Codes of each row, their step, and the length of the difference (rounded up)."""
    steps = (np.abs(values).max(axis=1) / 127).astype(np.float32)
    steps = np.where(steps > 0, steps, np.float32(1)).astype(np.float32)
    wide = steps.astype(np.float64)[:, None]
    codes = np.clip(np.rint(values / wide), -127, 127)
    error = np.sqrt(np.square(values - codes * wide).sum(axis=1))
    return codes.astype(np.int8), steps, _up(error).astype(np.float32)


def _interleaved(codes: NDArray[np.int8], panels: int) -> NDArray[np.int8]:
    """[M, n] to [P, n/4, 64]: four columns of 16 rows side by side."""
    count, columns = codes.shape
    whole = np.pad(codes, ((0, panels * LANES - count), (0, 0)))
    blocks = whole.reshape(panels, LANES, columns // 4, 4).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(blocks).reshape(panels, columns // 4, 4 * LANES)


def _side_by_side(terms: F32) -> F32:
    """[n, 16·P] to [P, n, 16]."""
    count, rows = terms.shape
    return np.ascontiguousarray(terms.reshape(count, rows // LANES, LANES).transpose(1, 0, 2))


def _sums(codes: NDArray[np.int8], panels: int) -> I32:
    out = np.zeros(panels * LANES, np.int32)
    out[: len(codes)] = codes.sum(axis=1, dtype=np.int32) * -128
    return out.reshape(panels, LANES)


def _boxes(coordinates: F64, lengths: F64) -> F32:
    """Low and high [P, 2, 9] over each panel, rounded outwards."""
    points = np.column_stack([coordinates[:, :BOX], _rest(coordinates, lengths, BOX)])
    starts = np.arange(0, len(points), LANES)
    low = np.minimum.reduceat(points, starts).astype(np.float32)
    high = np.maximum.reduceat(points, starts).astype(np.float32)
    margin = np.float32(1e-6 * np.sqrt(lengths.max()))  # rounding of coordinates and rests
    return np.stack([low - margin, high + margin], axis=1)


def _merge(boxes: F32) -> F32:
    starts = np.arange(0, len(boxes), LANES)
    low = np.minimum.reduceat(boxes[:, 0], starts)
    high = np.maximum.reduceat(boxes[:, 1], starts)
    return np.stack([low, high], axis=1)


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


def _shadow(
    padded: F32, centre: F32, scale: float, panels: int
) -> tuple[NDArray[np.int8], F32, I32]:
    count, ld = padded.shape
    wide = np.pad(centre, (0, ld - len(centre)))
    codes = np.zeros((count, ld), np.int8)
    terms = np.zeros((3, panels * LANES), np.float32)
    terms[1] = FAR
    for start in range(0, count, _CHUNK):
        part = slice(start, min(count, start + _CHUNK))
        codes[part], steps, errors = _int8(_centred(padded[part], wide, scale))
        square = np.square(codes[part] * steps.astype(np.float64)[:, None]).sum(axis=1)
        terms[0, part], terms[2, part] = steps, errors
        terms[1, part] = square - errors.astype(np.float64) ** 2
    return _interleaved(codes, panels), _side_by_side(terms), _sums(codes, panels)
