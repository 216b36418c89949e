"""Whether, and along which principal axes, most rows of a bank can be skipped.

Any orthonormal axes keep the search exact; good ones make it fast. The number of axes minimises
an estimate of the search's work, from a sample of rows that look for their neighbours among the
others: few axes leave many rows to test closely, many cost more for every row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adcompile.anomaly.bank_int8 import LANES, int8_copy
from adcompile.errors import UsageError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

GROUP = 256
"""Rows with one bounding box."""
BOX = 8
"""Axes of the bounding boxes."""
COUNTS = (16, 32, 48, 64, 96, 128, 192, 256)
"""Numbers of axes to choose from."""
_SAMPLE = 16384
_SEEKERS = 48
_OTHERS = 4096
_NEIGHBOURS = 5
# Work in vector instructions: for 16 rows and 4 columns 1, and beside the products
_PANEL = 8  # … for 16 rows,
_SINGLE = 110  # … for a single row, which has to come from memory,
_QUERY = 2000  # … for a query's boxes and first limit.
SMALL_ROWS = 512
"""Rows of a bank that ``bank_small.cpp`` searches: a tile of queries against all rows at once …"""
SMALL_AXES = 64
"""… along at most so many axes."""
_SMALL_QUERY = 450  # … there, for all of a query's steps that do not depend on sizes.
_GAIN = 0.75
"""Less work than this share of a plain scan is worth the larger file."""


def choose_axes(rows: F32, centre: F32, scale: float, wanted: int | None = None) -> F64 | None:
    """Orthonormal columns [D, A], A one of ``COUNTS``, or None where all rows had better be scanned.

    *centre* and *scale* as in ``bank_layout.py``. When D < A the missing columns are zero. *wanted*
    axes (or 0 for None) are not questioned.
    """
    if wanted is not None:
        if wanted not in (0, *COUNTS):
            raise UsageError(
                f"{wanted} axes", why=f"0 or one of {', '.join(map(str, COUNTS))} are possible"
            )
        return principal_axes(rows, centre, scale, wanted) if wanted else None
    count, columns = rows.shape
    plain = count / LANES * (columns / 4 + _PANEL)
    if plain * _GAIN < _work(COUNTS[0], 0.0, 0.0, rows):
        return None
    basis = principal_axes(rows, centre, scale, COUNTS[-1])
    left = _survivors(rows, centre, scale, basis)
    # Groups are skipped by 8 axes: one is visited when any of its rows is near by these.
    visited = min(1.0, 3 * left.pop(BOX) / count)
    work = {axes: _work(axes, visited, survivors, rows) for axes, survivors in left.items()}
    best = min(work, key=lambda axes: (work[axes], axes))
    return basis[:, :best] if work[best] < plain * _GAIN else None


def _work(axes: int, visited: float, survivors: float, rows: F32) -> float:
    count, columns = len(rows), int(rows.shape[1])
    if count <= SMALL_ROWS and axes <= SMALL_AXES:
        # two int8 products of all columns per axis, then every row along the axes
        project = 2 * axes / LANES * columns / 4
        scan = count / LANES * (axes / 4 + _PANEL)
        return _SMALL_QUERY + project + scan + survivors * (columns / 32 + 14)
    scan = visited * count / LANES * (axes / 4 + _PANEL)
    return _QUERY + columns * axes / LANES + scan + survivors * (columns / 8 + _SINGLE)


def _survivors(rows: F32, centre: F32, scale: float, basis: F64) -> dict[int, float]:
    """For each number of axes: how many rows a search has to test closely."""
    seekers = rows[:: max(1, len(rows) // _SEEKERS)][:_SEEKERS]
    step = max(1, -(-len(rows) // _OTHERS))
    others = rows[::step]
    u, v = ((part - centre) * np.float32(scale) for part in (seekers, others))
    z, y = u @ basis.astype(np.float32), v @ basis.astype(np.float32)
    lengths = [np.einsum("ij,ij->i", part, part, dtype=np.float64) for part in (u, v)]
    near = _near(u, rows, centre, scale)
    found: dict[int, float] = {}
    for axes in (BOX, *COUNTS):
        if axes > COUNTS[0] and axes >= 2 * rows.shape[1]:
            break
        rests = [
            np.sqrt(
                np.maximum(length - np.square(part[:, :axes], dtype=np.float64).sum(axis=1), 0)
            )
            for length, part in zip(lengths, (z, y), strict=True)
        ]
        copies = [int8_copy(part[:, :axes].astype(np.float64)) for part in (z, y)]
        points = [
            np.column_stack([part[:, :axes], rest])
            for part, rest in zip((z, y), rests, strict=True)
        ]
        squares = [np.square(p).sum(axis=1) for p in points]
        apart = squares[0][:, None] + squares[1] - 2.0 * points[0] @ points[1].T
        reach = near[:, None] + copies[0].terms[2][:, None] + copies[1].terms[2]
        found[axes] = float((apart <= reach**2).sum(axis=1).mean()) * step
    return found


def _near(seekers: F32, rows: F32, centre: F32, scale: float) -> F64:
    """Roughly, how far the ``_NEIGHBOURS``-th nearest row is from each centred seeker."""
    nearest = np.full((len(seekers), _NEIGHBOURS), np.inf)
    own = np.einsum("ij,ij->i", seekers, seekers, dtype=np.float64)[:, None]
    for start in range(0, len(rows), _OTHERS):
        u = (rows[start : start + _OTHERS] - centre) * np.float32(scale)
        squared = own + np.einsum("ij,ij->i", u, u, dtype=np.float64) - 2.0 * (seekers @ u.T)
        squared[squared < 1e-6] = np.inf  # the row itself, and its copies
        nearest = np.sort(np.column_stack([nearest, squared]), axis=1)[:, :_NEIGHBOURS]
    near = np.sqrt(nearest[:, -1])
    return np.where(np.isfinite(near), near, 1.0)


def principal_axes(rows: F32, centre: F32, scale: float, count: int) -> F64:
    """Orthonormal columns [D, count] spanning the directions of most variance.

    From a deterministic, evenly spaced sample of rows. When D < count the missing columns are zero.
    """
    step = max(1, -(-len(rows) // _SAMPLE))
    sample = ((rows[::step] - centre) * np.float32(scale)).astype(np.float32)
    columns = rows.shape[1]
    kept = min(count, columns)
    covariance = (sample.T @ sample).astype(np.float64)
    _, vectors = np.linalg.eigh(covariance)
    basis, _ = np.linalg.qr(vectors[:, ::-1][:, :kept])
    return np.pad(basis, ((0, 0), (0, count - kept)))


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
