"""Time a bundle part by part: warm-up, n runs, percentiles, calls and bytes at every border."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adcompile.runtime.bundle import Bundle
from adcompile.runtime.executor import Array
from adcompile.runtime.runner import PartRun

Watch = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds over all timed runs, and what one run moved. Calls and bytes are medians."""

    name: str
    where: str
    p50: float
    p90: float
    p99: float
    mean: float
    calls: float
    bytes_in: float
    bytes_out: float

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        return {
            "name": self.name,
            "where": self.where,
            "p50_ms": round(self.p50, 4),
            "p90_ms": round(self.p90, 4),
            "p99_ms": round(self.p99, 4),
            "mean_ms": round(self.mean, 4),
            "calls": self.calls,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }


@dataclass(frozen=True)
class Bench:
    """``parts`` in execution order and the ``total`` around all of them; ``prepared`` is reading and
    pre-processing of the input files, None for arrays, and not in the total."""

    parts: tuple[Timing, ...]
    total: Timing
    prepared: Timing | None
    runs: int
    warmup: int
    simulated: tuple[str, ...]

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        return {
            "runs": self.runs,
            "warmup": self.warmup,
            "simulated": list(self.simulated),
            "total": self.total.record(),
            "prepared": None if self.prepared is None else self.prepared.record(),
            "parts": [part.record() for part in self.parts],
        }


def bench(
    bundle: Bundle,
    source: Mapping[str, Array | Path],
    *,
    runs: int = 20,
    warmup: int = 3,
    watch: Watch | None = None,
) -> Bench:
    """Run *bundle* ``warmup + runs`` times on *source*: arrays, or files that are read and pre-processed
    every time. Times of simulated parts are the CPU's."""
    files = any(isinstance(value, Path) for value in source.values())
    feeds = bundle.feeds(source)[0]
    prepared: list[float] = []
    total: list[float] = []
    parts: list[list[PartRun]] = []
    gone = 0
    for number in range(warmup + runs):
        before = time.perf_counter()
        if files:
            feeds = bundle.feeds(source)[0]
        start = time.perf_counter()
        result = bundle.run(feeds)
        seconds = time.perf_counter() - start
        if number >= warmup:
            prepared.append(start - before)
            total.append(seconds)
            parts.append(result.parts)
            gone = sum(array.nbytes for array in result.outputs.values())
        if watch is not None:
            watch(number + 1)
    where = bundle.where
    timings = tuple(
        _timing(each[0].name, where[each[0].name], [p.seconds for p in each], each)
        for each in zip(*parts, strict=True)
    )
    made = sum(part.calls for part in parts[-1])
    fed = sum(np.asarray(array).nbytes for array in feeds.values())
    whole = [PartRun("total", s, made, fed, gone) for s in total]
    summed = _timing("total", "", total, whole)
    ahead: Timing | None = None
    if files:
        each = [PartRun("prepared", s, 0, 0, fed) for s in prepared]
        ahead = _timing("prepared", "", prepared, each)
    return Bench(timings, summed, ahead, runs, warmup, bundle.simulated)


def _timing(name: str, where: str, seconds: Sequence[float], counts: Sequence[PartRun]) -> Timing:
    p50, p90, p99 = (float(x) * 1e3 for x in np.percentile(seconds, [50, 90, 99]))
    return Timing(
        name=name,
        where=where,
        p50=p50,
        p90=p90,
        p99=p99,
        mean=float(np.mean(seconds)) * 1e3,
        calls=float(np.median([each.calls for each in counts])),
        bytes_in=float(np.median([each.bytes_in for each in counts])),
        bytes_out=float(np.median([each.bytes_out for each in counts])),
    )
