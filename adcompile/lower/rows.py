"""Policies for parts whose rows are regions: sizes from a histogram, and what each policy costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from adcompile.errors import UsageError
from adcompile.interfaces import Array, CalibrationData
from adcompile.place.cost import BYTES_PER_US, CALL_US, HOST_MACS_PER_US
from adcompile.runtime.tiles import Mosaic, pack

DEVICE_MACS_PER_US = 1_000_000.0  # a tenth of the 8-bit peak of the smallest NPU


def row_counts(data: CalibrationData) -> list[int]:
    """Rows of every recorded sample."""
    return [min((a.shape[0] for a in sample.values()), default=0) for sample in data]


def bucket_sizes(counts: Sequence[int], most: int = 4) -> tuple[int, ...]:
    """At most *most* sizes with the least padded rows over *counts*; the largest count is covered.

    Exact (dynamic programming over the distinct counts).
    """
    if most < 1:
        raise UsageError(f"{most} buckets", fix="ask for at least one")
    histogram = Counter(c for c in counts if c > 0)
    if not histogram:
        return (1,)
    sizes = sorted(histogram)

    @cache
    def best(last: int, left: int) -> tuple[int, tuple[int, ...]]:
        """Least padding for counts up to index *last*, with its sizes."""
        if last < 0:
            return 0, ()
        options: list[tuple[int, tuple[int, ...]]] = []
        for first in range(last if left > 1 else 0, -1, -1):
            if left == 1 and first > 0:
                continue
            padding = sum(
                (sizes[last] - sizes[i]) * histogram[sizes[i]] for i in range(first, last)
            )
            below, chosen = best(first - 1, left - 1) if first else (0, ())
            options.append((below + padding, (*chosen, sizes[last])))
        return min(options)

    return best(len(sizes) - 1, most)[1]


@dataclass(frozen=True, slots=True)
class PolicyCost:
    """Mean per image: calls, multiply-adds (padding and gutters included), bytes moved, and a rough
    time in microseconds that only serves to compare policies."""

    policy: str
    calls: float
    macs: float
    bytes: float
    us: float
    sizes: tuple[int, ...] = ()


def policy_costs(
    counts: Sequence[int],
    row_macs: int,
    row_bytes: int,
    *,
    tile_share: float = 0.0,
) -> list[PolicyCost]:
    """Cost of every policy over the recorded *counts* (rows per image), cheapest first.

    *tile_share* is the part of a mosaic image that is not gutter; 0 when the part has no mosaic form,
    which leaves out ``mosaic`` and ``bucket``.
    """
    seen = [c for c in counts if c > 0] or [1]
    images = max(len(counts), 1)
    sizes = bucket_sizes(seen)
    most = max(seen)

    def cost(policy: str, calls: float, rows: float, share: float = 1.0) -> PolicyCost:
        """*calls* and *rows* are sums over all images."""
        work, moved = rows * row_macs / share / images, rows * row_bytes / share / images
        if policy == "host":
            us, calls, moved = work / HOST_MACS_PER_US, 0.0, 0.0
        else:
            us = work / DEVICE_MACS_PER_US + calls / images * CALL_US + moved / BYTES_PER_US
        chosen = {"bucket": sizes, "mosaic": (most,)}.get(policy, ())
        return PolicyCost(policy, calls / images, work, moved, us, chosen)

    total = float(sum(seen))
    costs = [cost("loop", total, total), cost("host", 0.0, total)]
    if tile_share > 0.0:
        padded = float(sum(size_for(c, sizes) for c in seen))
        calls = float(sum(-(-c // max(sizes)) for c in seen))
        costs.append(cost("bucket", calls, padded, tile_share))
        costs.append(cost("mosaic", float(len(seen)), float(len(seen) * most), tile_share))
    simplest = ("host", "loop", "mosaic", "bucket")
    return sorted(costs, key=lambda c: (c.us, simplest.index(c.policy)))


def size_for(count: int, sizes: Sequence[int]) -> int:
    """Rows that run for *count* rows when pieces are padded to one of *sizes*."""
    whole, rest = divmod(count, max(sizes))
    tail = min((s for s in sizes if s >= rest), default=max(sizes)) if rest else 0
    return whole * max(sizes) + tail


class MosaicCalibration:
    """Recorded rows packed into mosaic images. Tiles without a row repeat the sample's rows, so that
    padding does not pull the statistics towards zero."""

    def __init__(self, data: CalibrationData, layout: Mosaic) -> None:
        self._data = data
        self._layout = layout
        self._grid = max(layout.grids, key=lambda g: g[0] * g[1])
        self._count = sum(1 for count in row_counts(data) if count > 0)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Array]]:
        capacity = self._grid[0] * self._grid[1]
        for sample in self._data:
            count = min((a.shape[0] for a in sample.values()), default=0)
            if count == 0:
                continue
            index = np.arange(capacity) % count
            yield {
                name: pack(sample[name][index], spec, self._grid)
                for name, spec in self._layout.inputs.items()
            }
