"""Which rows a memory bank keeps: greedy k-centre (farthest point first), without approximation.

Every pick is the row farthest from the picks before it, by distances in double precision; among
equally far rows the one with the lowest number; never a row twice. So the selection depends on
the rows and the first pick only, not on threads, instruction set, or whether there is a C++
compiler (``coreset_reference.py`` selects the same rows in NumPy, more slowly).
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from adcompile.anomaly.bank import check_vectors
from adcompile.anomaly.coreset_reference import farthest_from_mean, reference_coreset
from adcompile.anomaly.search import NOT_FINITE, PATHS, load_kernels
from adcompile.errors import InputError, ToolMissing, UsageError

First = Literal["first", "random", "farthest-from-mean"]
FIRST_RULES: tuple[First, ...] = ("first", "random", "farthest-from-mean")
"""Row 0; a row drawn with the seed; the row farthest from the mean (lowest number among equals)."""

Array = NDArray[np.generic]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Coreset:
    """The picks, in order. ``squared_radii[i]``: how far the farthest row is from picks 0 … i."""

    indices: Indices
    squared_radii: F64

    @property
    def radius(self) -> float:
        """The covering radius of all picks (a Euclidean distance)."""
        return math.sqrt(float(self.squared_radii[-1]))


def select_coreset(
    rows: Array,
    count: int,
    *,
    first: First | int = "farthest-from-mean",
    seed: int = 0,
    projection: bool = False,
    threads: int = 1,
    path: str = "auto",
) -> Coreset:
    """Choose ``count`` of ``rows`` [N, D], float32.

    *first* names a rule or gives the row itself; *projection* selects in a sparse random projection
    of the rows, as the reference systems do (the radius is then one of projected rows); *path* as
    for ``search.Searcher``. Raises InputError for NaN or a wrong shape, UsageError for options.
    """
    # The kernels look at every value anyway: they find what is not finite.
    loaded = None if path == "numpy" else load_kernels()
    library = loaded.library if loaded else None
    checked = check_vectors(rows, "features", finite=library is None)
    if not 1 <= count <= len(checked):
        raise InputError(
            f"{count} rows asked for", why=f"there are {len(checked)}", fix="1 to all are possible"
        )
    if path not in PATHS:
        raise UsageError(f"no path {path!r}", why=f"known: {', '.join(PATHS)}")
    space = sparse_projection(checked, seed) if projection else checked
    if library is not None:
        start = -1 if first == "farthest-from-mean" else first_pick(space, first, seed)
        job = _Job(space.ctypes.data, len(space), space.shape[1], count, start, threads)
        made = _native_coreset(library, job, checked, path)
        if made is not None:
            return made
    elif loaded and path != "auto":
        raise ToolMissing(f"path {path!r} needs the C++ kernels", why=loaded.reason)
    return Coreset(*reference_coreset(space, count, first_pick(space, first, seed)))


def first_pick(rows: F32, first: First | int, seed: int = 0) -> int:
    """The row that the rule *first* names (or the number itself, checked)."""
    if isinstance(first, int):
        if not 0 <= first < len(rows):
            raise UsageError(f"first row {first}", why=f"rows are 0 … {len(rows) - 1}")
        return first
    if first == "first":
        return 0
    if first == "random":
        return int(np.random.default_rng(seed).integers(len(rows)))
    if first == "farthest-from-mean":
        return farthest_from_mean(rows)
    raise UsageError(
        f"no rule {first!r} for the first row", why=f"known: {', '.join(FIRST_RULES)}"
    )


def projection_columns(rows: int, eps: float = 0.9) -> int:
    """Columns that keep all distances of *rows* points within *eps* (Johnson and Lindenstrauss)."""
    return int(4 * math.log(max(rows, 2)) / (eps**2 / 2 - eps**3 / 3))


def sparse_projection(rows: F32, seed: int) -> F32:
    """Sparse random projection (Achlioptas; Li, Hastie and Church).

    Entries are 0 or ±√(√D / columns), density 1/√D. Rows that are no wider than the projection
    would be come back unchanged. Raises InputError where the result is not finite.
    """
    columns = projection_columns(len(rows))
    if columns >= rows.shape[1]:
        return rows
    density = 1.0 / math.sqrt(rows.shape[1])
    draw = np.random.default_rng(seed).random((rows.shape[1], columns))
    size = np.float32(math.sqrt(1 / density / columns))
    matrix = np.zeros(draw.shape, np.float32)
    matrix[draw < density / 2] = size
    matrix[draw >= 1 - density / 2] = -size
    with np.errstate(over="ignore", invalid="ignore"):  # seen to below
        projected = np.asarray(rows @ matrix, dtype=np.float32)
    if not np.isfinite(projected).all():
        check_vectors(rows, "features")
        raise InputError("features are too large", why="their projection leaves float32's range")
    return projected


class _Job(ctypes.Structure):
    """``adc_coreset_job`` of ``coreset.hpp``."""

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("picks", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("threads", ctypes.c_int),
    )


def _native_coreset(library: ctypes.CDLL, job: _Job, rows: F32, path: str) -> Coreset | None:
    """Run *job* on *rows*, or a projection of them. None where their differences leave float32."""
    indices = np.empty(job.picks, np.int64)
    radii = np.empty(job.picks, np.float64)
    message = ctypes.create_string_buffer(256)
    status: int = library.adc_coreset(
        ctypes.byref(job),
        ctypes.c_char_p(path.encode()),
        ctypes.c_void_p(indices.ctypes.data),
        ctypes.c_void_p(radii.ctypes.data),
        message,
        ctypes.c_size_t(len(message)),
    )
    if status == NOT_FINITE:
        check_vectors(rows, "features")  # names the row
        return None
    if status != 0:
        text = message.value.decode(errors="replace")
        raise ToolMissing("the native coreset refused", why=text)
    return Coreset(indices, radii)
