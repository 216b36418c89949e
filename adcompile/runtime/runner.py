"""Runs the parts of a bundle in order, joined by value names.

Tensors are handed over without copies, dropped after their last reader, and can be tapped on the
way. Every part's time, calls and bytes are counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from adcompile.errors import FormatError
from adcompile.manifest import PartRecord
from adcompile.runtime.executor import Array, Executor
from adcompile.runtime.roi import RowPlan, run_rows

Tap = Callable[[str, Array], None]


@dataclass(frozen=True, slots=True)
class PartRun:
    """What one part did in one run. Bytes are those of its input and output tensors."""

    name: str
    seconds: float
    calls: int
    bytes_in: int
    bytes_out: int


@dataclass
class RunResult:
    """Outputs by name, and one entry per part in execution order."""

    outputs: dict[str, Array]
    parts: list[PartRun]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Parts in order with what each may free afterwards. Made once, used for every run."""

    parts: tuple[PartRecord, ...]
    outputs: tuple[str, ...]
    frees: tuple[tuple[str, ...], ...]
    rows: tuple[RowPlan | None, ...]

    @classmethod
    def of(
        cls, parts: Sequence[PartRecord], inputs: Sequence[str], outputs: Sequence[str]
    ) -> Schedule:
        """Check that every value is made before it is read. Raises FormatError otherwise."""
        made = set(inputs)
        for part in parts:
            _need(made, [spec.name for spec in part.inputs], f"part {part.name}")
            passed = {spec.name for spec in part.inputs}  # a part may hand an input through
            again = [s.name for s in part.outputs if s.name in made and s.name not in passed]
            if again:
                raise FormatError(f"{again[0]!r} is made twice", where=f"part {part.name}")
            made |= {spec.name for spec in part.outputs}
        _need(made, outputs, "outputs")
        return cls(
            tuple(parts),
            tuple(outputs),
            _frees(parts, inputs, set(outputs)),
            tuple(RowPlan.of(part) for part in parts),
        )


def _need(made: set[str], names: Sequence[str], where: str) -> None:
    missing = [name for name in names if name not in made]
    if missing:
        raise FormatError(
            "the parts do not fit together",
            where=where,
            why=f"no earlier part makes {missing[0]!r}",
            fix="build the bundle again",
        )


def _frees(
    parts: Sequence[PartRecord], inputs: Sequence[str], kept: set[str]
) -> tuple[tuple[str, ...], ...]:
    last: dict[str, int] = dict.fromkeys(inputs, -1)
    for index, part in enumerate(parts):
        for spec in (*part.inputs, *part.outputs):
            last[spec.name] = index
    return tuple(
        tuple(name for name, reader in last.items() if reader == index and name not in kept)
        for index in range(len(parts))
    )


@dataclass
class Flow:
    """One run in progress: live values and what was counted so far."""

    values: dict[str, Array]
    parts: list[PartRun] = field(default_factory=list[PartRun])


def step(
    schedule: Schedule, index: int, executor: Executor, flow: Flow, tap: Tap | None = None
) -> None:
    """Run part *index* on the values of *flow*; adds its results, frees what nobody reads."""
    part, plan = schedule.parts[index], schedule.rows[index]
    feeds = {spec.name: flow.values[spec.name] for spec in part.inputs}
    start = time.perf_counter()
    if plan is None:
        results, calls = executor.run(feeds), 1
    else:
        results, calls = run_rows(plan, executor, feeds)
    seconds = time.perf_counter() - start
    lost = [spec.name for spec in part.outputs if spec.name not in results]
    if lost:
        raise FormatError(f"part {part.name} did not return {lost[0]!r}", where=executor.where)
    made = {spec.name: results[spec.name] for spec in part.outputs}
    flow.values.update(made)
    flow.parts.append(PartRun(part.name, seconds, calls, _bytes(feeds), _bytes(made)))
    if tap is not None:
        for name, array in made.items():
            tap(name, array)
    for name in schedule.frees[index]:
        del flow.values[name]


def _bytes(values: Mapping[str, object]) -> int:
    return sum(_nbytes(value) for value in values.values())


def _nbytes(value: object) -> int:
    """Bytes of an array, or of the arrays of a sequence; an absent optional has none."""
    if isinstance(value, list):
        return sum(_nbytes(item) for item in cast("list[object]", value))
    return np.asarray(value).nbytes if value is not None else 0


def run_parts(
    schedule: Schedule,
    executors: Sequence[Executor],
    feeds: Mapping[str, Array],
    *,
    tap: Tap | None = None,
) -> RunResult:
    """Run all parts. *tap* sees every part's outputs as they are made (and must copy to keep)."""
    flow = Flow(dict(feeds))
    if tap is not None:
        for name, array in feeds.items():
            tap(name, array)
    for index, executor in enumerate(executors):
        step(schedule, index, executor, flow, tap)
    return RunResult({name: flow.values[name] for name in schedule.outputs}, flow.parts)
