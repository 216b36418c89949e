"""How many memory rows to keep, and which: greedy k-centre with a stated first point.

The first point is the row farthest from the mean of all rows (ties: the lowest index), so the
selection depends on the data only. ``dropped`` leaves that first point out of the result, as the
systems do that forget their random start; ``index0`` starts at row 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.maps import Array
from adcompile.anomaly.presets import FirstCentre
from adcompile.errors import InputError, UsageError

Indices = npt.NDArray[np.int64]
Watch = Callable[[int, int], None]


def row_count(total: int, ratio: float, rows: int = 0) -> int:
    """Rows to keep: *rows* when given, else int(total · ratio), at least one."""
    if total < 1:
        raise InputError("there are no features to choose from")
    if rows > total:
        raise UsageError(
            "more rows asked for than there are",
            why=f"{rows} of {total}",
            fix="lower coreset_rows",
        )
    return rows or max(1, int(total * ratio))


def projected(rows: Array, seed: int, eps: float = 0.9) -> Array:
    """Sparse random projection to the Johnson-Lindenstrauss dimension for *eps*.

    Entries are 0, or ±sqrt(√C / components) with density 1/√C; rows that already have fewer
    columns than that come back unchanged.
    """
    count, columns = rows.shape
    target = int(4 * math.log(max(count, 2)) / (eps**2 / 2 - eps**3 / 3))
    if target >= columns:
        return rows
    random = np.random.default_rng(seed)
    density = 1.0 / math.sqrt(columns)
    signs = random.random((columns, target))
    matrix = np.where(signs < density / 2, -1.0, np.where(signs < density, 1.0, 0.0))
    matrix *= math.sqrt(1.0 / density / target)
    return np.asarray(rows @ matrix.astype(np.float32), dtype=np.float32)


def choose_rows(
    rows: Array,
    count: int,
    *,
    seed: int = 0,
    projection: bool = False,
    first: FirstCentre = "kept",
    watch: Watch | None = None,
) -> Indices:
    """Indices of *count* rows [N, C], in the order they were chosen."""
    if not np.isfinite(rows).all():
        raise InputError("the features hold values that are not finite")
    space = projected(rows, seed) if projection else rows
    start = 0 if first == "index0" else _outermost(space)
    wanted = count + 1 if first == "dropped" and count < len(rows) else count
    chosen = k_centre(space, wanted, start, watch)
    return chosen[-count:]


def _outermost(rows: Array) -> int:
    gaps = rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return int(np.argmax(np.einsum("nc,nc->n", gaps, gaps)))


def k_centre(rows: Array, count: int, start: int, watch: Watch | None = None) -> Indices:
    """Greedy k-centre: each next row is the one farthest from those chosen (ties: lowest index)."""
    chosen = np.empty(count, dtype=np.int64)
    squares = np.einsum("nc,nc->n", rows, rows)
    nearest = np.full(len(rows), np.inf, dtype=np.float32)
    at = start
    for step in range(count):
        chosen[step] = at
        gap = squares - 2.0 * (rows @ rows[at]) + squares[at]
        np.minimum(nearest, gap, out=nearest)
        nearest[at] = -1.0
        at = int(np.argmax(nearest))
        if watch is not None and step % 64 == 0:
            watch(step, count)
    return chosen
