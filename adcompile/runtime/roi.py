"""Running a part whose rows are regions of interest, when the device takes a fixed row count.

The part's option ``roi_policy`` decides (``whole`` when it is absent):

``whole``   one call with all rows
``loop``    one call per row
``bucket``  option ``roi_buckets`` ("1,8,32"): rows are cut into pieces, each padded with zeros to
            the smallest bucket that holds it; the padding's results are thrown away
``mosaic``  the rows lie side by side in one image, so that one call takes as many as fit; a part that
            was built so under ``bucket`` has several sizes of such images. No row is padding
``host``, ``profile``
            one call with all rows: the first runs on the host, the second is a device that takes
            any row count

No rows: nothing is called and the results are empty, under every policy. A CPU simulation that takes
any number of rows runs them in one call; the calls are counted as the device would make them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from adcompile.errors import FormatError, InputError
from adcompile.manifest import PartRecord, TensorSpec
from adcompile.runtime.executor import Array, Executor

POLICIES = ("whole", "loop", "bucket", "host", "profile", "mosaic")
ROWS = "roi"
SIMULATION = "simulation"  # a simulation with free rows; one per row count is SIMULATION_<rows>


@dataclass(frozen=True, slots=True)
class RowPlan:
    """How one part's rows are cut: ``buckets`` is empty when they are not. ``packed``: pieces need no
    padding, because the executor lays them out in an image."""

    part: PartRecord
    inputs: tuple[str, ...]
    outputs: tuple[TensorSpec, ...]
    buckets: tuple[int, ...]
    packed: bool = False

    @classmethod
    def of(cls, part: PartRecord) -> RowPlan | None:
        """The plan of a part; None when its rows are images. Raises FormatError on bad options."""
        if part.rows != ROWS:
            return None
        policy = part.options.get("roi_policy", "whole")
        if policy not in POLICIES:
            raise FormatError(
                f"unknown ROI policy {policy!r}",
                where=f"part {part.name}",
                fix="known: " + ", ".join(POLICIES),
            )
        buckets = _buckets(part, policy)
        return cls(part, _row_inputs(part), part.outputs, buckets, "mosaic" in part.options)

    def pieces(self, rows: int) -> list[tuple[int, int, int]]:
        """(first row, rows, rows after padding) of every call."""
        if not rows or not self.buckets:
            return [(0, rows, rows)] if rows else []
        cut: list[tuple[int, int, int]] = []
        largest = self.buckets[-1]
        for start in range(0, rows, largest):
            count = min(largest, rows - start)
            size = count if self.packed else next(b for b in self.buckets if b >= count)
            cut.append((start, count, size))
        return cut


def _buckets(part: PartRecord, policy: str) -> tuple[int, ...]:
    if policy == "loop":
        return (1,)
    if policy != "bucket" and not ("mosaic" in part.options and "roi_buckets" in part.options):
        return ()
    text = part.options.get("roi_buckets", "")
    try:
        sizes = sorted({int(size) for size in text.split(",")})
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < 1:
        raise FormatError(
            "roi_buckets must be sizes such as 1,8,32",
            where=f"part {part.name}",
            why=f"it is {text!r}",
        )
    return tuple(sizes)


def _row_inputs(part: PartRecord) -> tuple[str, ...]:
    """Inputs that are cut along axis 0: those with a free first dimension, else all."""
    free = [s.name for s in part.inputs if s.shape and isinstance(s.shape[0], str)]
    return tuple(free or [s.name for s in part.inputs if s.shape])


def run_rows(
    plan: RowPlan, executor: Executor, feeds: Mapping[str, Array]
) -> tuple[dict[str, Array], int]:
    """Results for all rows, and the number of calls that were made."""
    rows = _row_count(plan, feeds)
    pieces = plan.pieces(rows)
    if not pieces:
        return {spec.name: empty(spec) for spec in plan.outputs}, 0
    if pieces == [(0, rows, rows)]:
        return executor.run(feeds), 1
    if executor.simulated and SIMULATION in plan.part.files:
        # rows do not depend on each other and this file takes any number: one call, same numbers
        return executor.run(feeds), len(pieces)
    parts = [_run_piece(plan, executor, feeds, piece) for piece in pieces]
    joined = {
        spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in plan.outputs
    }
    return joined, len(pieces)


def run_part(part: PartRecord, executor: Executor, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """One part by itself, its rows by their policy; *executor* is open."""
    plan = RowPlan.of(part)
    return executor.run(feeds) if plan is None else run_rows(plan, executor, feeds)[0]


def _run_piece(
    plan: RowPlan, executor: Executor, feeds: Mapping[str, Array], piece: tuple[int, int, int]
) -> dict[str, Array]:
    start, count, padded = piece
    cut = dict(feeds)
    for name in plan.inputs:
        cut[name] = _pad(feeds[name][start : start + count], padded)
    results = executor.run(cut)
    for name, array in results.items():
        if len(array) != padded:
            raise FormatError(
                f"part {plan.part.name} returned {len(array)} rows for {padded}", where=name
            )
    return {name: array[:count] for name, array in results.items()}


def _pad(rows: Array, count: int) -> Array:
    if len(rows) == count:
        return rows
    padded = np.zeros((count, *rows.shape[1:]), dtype=rows.dtype)
    padded[: len(rows)] = rows
    return padded


def _row_count(plan: RowPlan, feeds: Mapping[str, Array]) -> int:
    counts = {name: len(feeds[name]) for name in plan.inputs}
    if len(set(counts.values())) != 1:
        raise InputError(
            "inputs have different numbers of rows",
            where=f"part {plan.part.name}",
            why=", ".join(f"{name} {count}" for name, count in counts.items()) or "no row input",
        )
    return next(iter(counts.values()))


def empty(spec: TensorSpec) -> Array:
    """No rows of *spec*. Raises FormatError when its other dimensions are not known numbers."""
    tail = tuple(d for d in spec.shape[1:] if isinstance(d, int))
    if not spec.shape or len(tail) != len(spec.shape) - 1:
        raise FormatError(
            "the shape of an empty result is not known", where=f"{spec.name} {list(spec.shape)}"
        )
    return np.zeros((0, *tail), dtype=np.dtype(spec.dtype))
