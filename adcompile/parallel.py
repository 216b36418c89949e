"""Work side by side in processes, results in order."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

_CHUNK = 16


def cores(most: int | None = None) -> int:
    """Number of cores this process may use, at most *most*."""
    allowed = getattr(os, "sched_getaffinity", None)
    count = len(allowed(0)) if allowed is not None else os.cpu_count() or 1
    return max(1, count if most is None else min(count, most))


def in_order(work: Callable[[In], Out], items: Sequence[In], jobs: int = 1) -> Iterator[Out]:
    """``work`` of every item, in the items' order, by *jobs* processes (1: in this one).

    ``work`` and the items are pickled: a module's function, or a ``functools.partial`` of one.
    Processes are started afresh, so a script that asks for more than one needs the usual
    ``if __name__ == "__main__"``.
    """
    jobs = min(jobs, -(-len(items) // _CHUNK))
    if jobs <= 1:
        yield from map(work, items)
        return
    # not forked: other threads of this process (BLAS, ONNX Runtime) may hold locks
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        try:
            yield from pool.map(work, items, chunksize=_CHUNK)
        finally:
            pool.shutdown(cancel_futures=True)
