"""Greedy k-centre in NumPy: the same picks as ``native/coreset.cpp``.

Only a pool of the currently farthest rows is kept up to date with every pick. Rows outside it keep
the distance they had when they last were in it, an upper bound. As long as the farthest row of the
pool is farther than every bound outside, it is the farthest of all; otherwise the pool is filled
anew. Matrix products in float32 with a known error bound decide which few distances have to be
computed in double precision.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from adcompile.anomaly.reference_search import EPS

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_POOL = 512
_PAIRS = 4096
_MATRIX = 1 << 22


def reference_coreset(rows: F32, count: int, first: int) -> tuple[I64, F64]:
    """Picks [count] and, after each, the squared distance of the farthest row."""
    state = _State(rows, count)
    radii = np.empty(count)
    following = first
    for i in range(count):
        state.pick(following)
        following, radii[i] = state.farthest()
    return state.picks, np.maximum(radii, 0.0)


def _distances(x: F32, y: F32) -> F64:
    """``reference_search.precise_distances`` of few pairs, with few calls."""
    return _squared_lengths(x.astype(np.float64) - y.astype(np.float64))


def _squared_lengths(rows: F64) -> F64:
    """Sums of squares of *rows* [n, a multiple of 16] in the order of ``Kernels::precise``."""
    squares = (rows * rows).reshape(len(rows), -1, 16)
    # accumulate adds strictly one after another; sum would be free to pair terms.
    sums = np.add.accumulate(squares, axis=1)[:, -1]
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    return np.asarray(sums[:, 0])


def farthest_from_mean(rows: F32) -> int:
    """The row farthest from the mean in double precision, the lowest number among equals.

    Most rows are ruled out in float32: a dot product of D terms errs by less than (D + 2) half
    units in the last place of its factors' lengths (Higham, Accuracy and Stability, section 3.1),
    and (|x| + |c|)² bounds all three terms of |x|² - 2 x.c + |c|².
    """
    centre = _mean(rows)
    centre_length = float(centre @ centre)
    with np.errstate(over="ignore", invalid="ignore"):  # seen to below
        squares = np.einsum("nc,nc->n", rows, rows).astype(np.float64)
        about = squares - 2.0 * (rows @ centre.astype(np.float32)) + centre_length
    most = (math.sqrt(float(squares.max())) + math.sqrt(centre_length)) ** 2
    error = 4.0 * (rows.shape[1] + 2) * 2.0**-24 * most
    near = np.arange(len(rows))
    if math.isfinite(error):  # else lengths are beyond float32's range
        near = np.flatnonzero(about >= about.max() - 2.0 * error)
    wide = ((0, 0), (0, -rows.shape[1] % 16))
    lengths = [
        _squared_lengths(np.pad(rows[part] - centre, wide))
        for part in np.array_split(near, -(-len(near) // 4096))
    ]
    return int(near[np.argmax(np.concatenate(lengths))])


def _mean(rows: F32) -> F64:
    """Each 1024 rows are summed one after another in double precision, then these sums are."""
    sums = [
        np.add.accumulate(rows[start : start + 1024], axis=0, dtype=np.float64)[-1]
        for start in range(0, len(rows), 1024)
    ]
    return np.asarray(np.add.accumulate(np.stack(sums), axis=0)[-1] / len(rows))


class _State:
    """Distances to the picks: exact in the pool, upper bounds outside."""

    def __init__(self, rows: F32, count: int) -> None:
        self._rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 32)))
        centre = rows.mean(axis=0, dtype=np.float64)
        wide = rows - centre
        longest = float(np.abs(wide).max())
        # Unit range: float32 products neither overflow nor lose small rows.
        self._unit = np.ldexp(1.0, -int(np.frexp(longest)[1])) if longest > 0 else 1.0
        self._u = (wide * self._unit).astype(np.float32)
        self._squares = np.einsum("nc,nc->n", self._u, self._u, dtype=np.float64)
        terms = 4 * float(self._squares.max(initial=0.0))
        self._slack = 4 * (rows.shape[1] + 20) * EPS * terms + 1e-30
        self._nearest = np.full(len(rows), np.inf)
        self._done = np.zeros(len(rows), np.int64)
        self._outside = np.inf
        self._pool = np.empty(0, np.int64)
        self._size = _POOL
        self._seen = 0
        self.picks: I64 = np.empty(count, np.int64)

    def pick(self, row: int) -> None:
        """Add a pick and bring the pool up to date."""
        self.picks[self._seen] = row
        self._seen += 1
        self._nearest[row] = -1.0
        self._done[row] = self._seen
        if len(self._pool):
            self._catch_up(self._pool)

    def farthest(self) -> tuple[int, float]:
        """The farthest row (lowest number among equals) and its squared distance."""
        while True:
            if len(self._pool):
                distances = self._nearest[self._pool]
                most = float(distances.max())
                if most > self._outside:
                    return int(self._pool[distances == most].min()), most
            self._refill()

    def _refill(self) -> None:
        """The farthest rows by what is known become the pool; a larger one when that was not enough."""
        size = min(self._size, len(self._nearest))
        order = np.argpartition(-self._nearest, size - 1)
        self._pool = np.sort(order[:size])
        others = order[size:]
        self._outside = float(self._nearest[others].max()) if len(others) else -np.inf
        self._catch_up(self._pool)
        enough = float(self._nearest[self._pool].max()) > self._outside
        self._size = _POOL if enough else self._size * 2

    def _catch_up(self, pool: I64) -> None:
        """Exact distances of the pool's rows to the picks they have not seen."""
        behind = pool[(self._done[pool] < self._seen) & (self._nearest[pool] >= 0)]
        if not len(behind):
            return
        start = int(self._done[behind].min())
        fresh = self.picks[start : self._seen]
        step = max(1, _MATRIX // max(len(fresh), self._u.shape[1]))
        for at in range(0, len(behind), step):
            self._compare(behind[at : at + step], fresh, start)
        self._done[behind] = self._seen

    def _compare(self, rows: I64, picks: I64, start: int) -> None:
        squares = self._squares.astype(np.float32)
        rank = squares[rows][:, None] + squares[picks] - 2 * (self._u[rows] @ self._u[picks].T)
        unseen = np.arange(start, start + len(picks)) >= self._done[rows][:, None]
        rank[~unseen] = np.inf
        # A pick farther than another one, or than what is known, for certain, does not count.
        limit = np.minimum(
            rank.min(axis=1) + self._slack, self._nearest[rows] * self._unit**2 * (1 + 1e-9)
        )
        near, at = np.nonzero(rank <= (limit + self._slack)[:, None])
        for part in range(0, len(near), _PAIRS):
            these, those = near[part : part + _PAIRS], at[part : part + _PAIRS]
            exact = _distances(self._rows[rows[these]], self._rows[picks[those]])
            np.minimum.at(self._nearest, rows[these], exact)
