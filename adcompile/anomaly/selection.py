"""How many memory rows to keep, and which: exact greedy k-centre with a stated first point.

The first point is the row farthest from the mean of all rows (ties: the lowest index), so the
selection depends on the data only. ``dropped`` leaves that first point out of the result, as the
systems do that forget their random start; ``index0`` starts at row 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.coreset import First, select_coreset
from adcompile.anomaly.maps import Array
from adcompile.anomaly.presets import FirstCentre
from adcompile.errors import InputError, UsageError
from adcompile.runtime.session import default_threads

Indices = npt.NDArray[np.int64]


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


def choose_rows(
    rows: Array,
    count: int,
    *,
    seed: int = 0,
    projection: bool = False,
    first: FirstCentre = "kept",
) -> Indices:
    """Indices of *count* rows [N, C], in the order they were chosen."""
    wanted = count + 1 if first == "dropped" and count < len(rows) else count
    rule: First = "first" if first == "index0" else "farthest-from-mean"
    chosen = select_coreset(
        rows, wanted, first=rule, seed=seed, projection=projection, threads=default_threads()
    )
    return chosen.indices[-count:]
