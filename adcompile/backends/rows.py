"""Running a part whose device model has a fixed number of rows on any number of rows.

Rows are regions of interest. The compiled batch is 1 (``loop``), or the smallest of several sizes
that fits (``bucket``). Padding rows are zeros and their results are thrown away. No rows give
empty results without a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from adcompile.errors import InputError
from adcompile.manifest import TensorSpec
from adcompile.runtime.executor import Array

Run = Callable[[Mapping[str, Array], int], Mapping[str, Array]]


def parse_sizes(text: str) -> tuple[int, ...]:
    """``"1,8,32"`` to (1, 8, 32). Raises InputError for anything else."""
    try:
        sizes = tuple(sorted({int(x) for x in text.split(",")}))
    except ValueError:
        sizes = ()
    if not sizes or sizes[0] < 1:
        raise InputError("row sizes must be positive integers", where=repr(text))
    return sizes


def chunks(count: int, sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Cut *count* rows into (start, rows, batch) calls: largest batches first, then the best fit."""
    plan: list[tuple[int, int, int]] = []
    start, largest = 0, max(sizes)
    while start < count:
        left = count - start
        batch = largest if left >= largest else min(s for s in sizes if s >= left)
        plan.append((start, min(left, batch), batch))
        start += batch
    return plan


def run_rows(
    run: Run,
    feeds: Mapping[str, Array],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    sizes: Sequence[int],
) -> dict[str, Array]:
    """Split the row inputs (first dimension free), call *run* per chunk, join the results."""
    by_row = [s.name for s in inputs if s.shape and isinstance(s.shape[0], str)]
    counts = {feeds[name].shape[0] for name in by_row}
    if len(counts) != 1:
        raise InputError(
            "inputs of a part disagree about the number of rows",
            where=", ".join(f"{n} {feeds[n].shape}" for n in by_row),
        )
    count = counts.pop()
    if count == 0:
        return {s.name: _empty(s) for s in outputs}
    joined: dict[str, list[Array]] = {s.name: [] for s in outputs}
    for start, rows, batch in chunks(count, sizes):
        part = {
            n: _pad(x[start : start + rows], batch) if n in by_row else x for n, x in feeds.items()
        }
        results = run(part, batch)
        for name, pieces in joined.items():
            pieces.append(results[name][:rows])
    return {name: np.concatenate(pieces) for name, pieces in joined.items()}


def _pad(rows: Array, batch: int) -> Array:
    missing = batch - rows.shape[0]
    if missing == 0:
        return np.ascontiguousarray(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])


def _empty(spec: TensorSpec) -> Array:
    tail = [d if isinstance(d, int) else 0 for d in spec.shape[1:]]
    return np.zeros((0, *tail), np.dtype(spec.dtype))
