"""Threads of the numeric libraries while a model is quantized.

Matrix products run on one thread: their sums, and so the bytes of the result, then do not depend on
the machine, and BLAS threads do not spin against those of ONNX Runtime. Samples run in parallel instead.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Generator
from typing import TYPE_CHECKING

from adcompile.parallel import cores

if TYPE_CHECKING:
    from typing import Any

MAX_WORKERS = 8


def workers() -> int:
    """Number of samples to run side by side: the cores this process may use, at most 8."""
    return cores(MAX_WORKERS)


@contextlib.contextmanager
def one_blas_thread() -> Generator[None]:
    """Limit BLAS to one thread, where ``threadpoolctl`` is installed."""
    if importlib.util.find_spec("threadpoolctl") is None:
        yield
        return
    control: Any = importlib.import_module("threadpoolctl")
    with control.threadpool_limits(limits=1, user_api="blas"):
        yield
