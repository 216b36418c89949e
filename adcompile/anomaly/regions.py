"""Connected components of a binary mask, in NumPy: run-length runs joined by label propagation.

Used by AUPRO (one overlap per defect region) and by mask post-processing. 8-connectivity, as the
MVTec evaluation uses; a mask of a few blobs costs little more than reading it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from adcompile.errors import InputError

Labels = npt.NDArray[np.int32]


def label_regions(mask: npt.ArrayLike) -> tuple[Labels, int]:
    """Label the 8-connected regions of a 2-D mask.

    Returns an int32 array (0 background, 1…n in order of first pixel, row by row) and n.
    """
    flags = np.asarray(mask)
    if flags.ndim != 2:
        raise InputError("a mask must be two-dimensional", why=f"shape {flags.shape}")
    flags = flags.astype(np.bool_)
    labels = np.zeros(flags.shape, dtype=np.int32)
    rows, starts, ends = _runs(flags)
    if rows.size == 0:
        return labels, 0
    roots = _join(rows, starts, ends)
    _, first, dense = np.unique(roots, return_index=True, return_inverse=True)
    numbers = np.argsort(np.argsort(first)).astype(np.int32)[dense] + np.int32(1)
    lengths = ends - starts
    labels[flags] = np.repeat(numbers, lengths)
    return labels, int(first.size)


def _runs(
    flags: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Horizontal runs of True in row-major order: row, first column, one past the last column."""
    padded = np.zeros((flags.shape[0], flags.shape[1] + 2), dtype=np.int8)
    padded[:, 1:-1] = flags
    steps = np.diff(padded, axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return rows.astype(np.int64), starts.astype(np.int64), ends.astype(np.int64)


def _join(
    rows: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """One root number per run: runs of touching rows that overlap (diagonals count) share it."""
    upper, lower = _touching(rows, starts, ends)
    roots = np.arange(rows.size)
    while upper.size:
        smallest = np.minimum(roots[upper], roots[lower])
        before = roots.copy()
        np.minimum.at(roots, roots[upper], smallest)
        np.minimum.at(roots, roots[lower], smallest)
        while True:
            jumped = roots[roots]
            if np.array_equal(jumped, roots):
                break
            roots = jumped
        if np.array_equal(before, roots):
            break
    return roots


def _touching(
    rows: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs (run, run of the next row) whose columns overlap or meet diagonally."""
    width = int(ends.max()) + 3
    # Runs are sorted by (row, start) and, being disjoint, also by (row, end): one search each.
    start_keys = rows * width + starts
    end_keys = rows * width + ends
    first = np.searchsorted(end_keys, (rows + 1) * width + starts, side="left")
    last = np.searchsorted(start_keys, (rows + 1) * width + ends, side="right")
    counts = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(rows.size), counts)
    offsets = np.arange(upper.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return upper, np.repeat(first, counts) + offsets
