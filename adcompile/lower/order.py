"""In which order nodes are best left in float: what takes away most error per node comes first."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pick:
    """The next nodes to leave in float, and the error power that they take away."""

    nodes: tuple[str, ...]
    gain: float

    @property
    def density(self) -> float:
        """What is gained per node."""
        return self.gain / len(self.nodes)


def best_order(
    sets: Sequence[Sequence[str]],
    noise: Callable[[frozenset[str]], float],
    most: int,
    watch: Callable[[int, int], None] | None = None,
) -> list[Pick]:
    """All of *sets* (which may overlap) as disjoint picks, by gain per node, greedily.

    ``noise(names)`` is the error power with these nodes in float. It is asked once for every set alone,
    then again only for the set that looks best beside what was picked, at most *most* times in all; what
    is left by then follows by its last known gain.
    """
    asked = 0

    def measured(floats: frozenset[str]) -> float:
        nonlocal asked
        if watch is not None:
            watch(min(asked, most - 1), most)
        asked += 1
        return noise(floats)

    present = measured(frozenset())
    picked: frozenset[str] = frozenset()
    picks: list[Pick] = []
    # largest density first, then the order of *sets*; the third is how many picks the gain is beside
    heap: list[tuple[float, int, int, float]] = []
    for index, names in enumerate(sets):
        gain = present - measured(frozenset(names)) if asked < most else 0.0
        heapq.heappush(heap, (-gain / len(names), index, 0, gain))
    while heap:
        _, index, known, gain = heapq.heappop(heap)
        new = tuple(name for name in sets[index] if name not in picked)
        if not new:
            continue
        if known < len(picks) and asked < most:
            gain = present - measured(picked.union(new))
            heapq.heappush(heap, (-gain / len(new), index, len(picks), gain))
            continue
        picks.append(Pick(new, gain))
        picked = picked.union(new)
        present -= gain
    return picks
