"""The one table of operators: everything the host backend can lower."""

from __future__ import annotations

from adcompile.backends.host.codegen import (
    anomaly,
    detection,
    elementwise,
    movement,
    neural,
    reductions,
    sampling,
)
from adcompile.backends.host.codegen.registry import ANY, BOOL, Op, Table

CONTROL: Table = {
    "If": Op(None, BOOL, control=True),
    "Loop": Op(None, ANY, control=True),
    "Scan": Op(None, ANY, 9, control=True),
}

STANDARD: Table = (
    elementwise.TABLE
    | movement.TABLE
    | reductions.TABLE
    | neural.TABLE
    | sampling.TABLE
    | detection.TABLE
    | CONTROL
)

TABLE: Table = STANDARD | anomaly.TABLE
"""Operators by type. The ``adcompile`` domain shares no name with the standard one."""
