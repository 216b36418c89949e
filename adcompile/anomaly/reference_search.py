"""The exact search in NumPy, bit for bit equal to the C++ one, in bounded memory.

A matrix product in float32 gives every distance with a known error bound (centred vectors, so the
bound is small). Rows that the bound cannot exclude are evaluated by the same float32 formula as in
C++ (32 running sums, the last columns first, fused multiply-add), and what float32 cannot tell apart in
double precision.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adcompile.anomaly.bank import Bank

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

EPS = 1.01 * 2.0**-24
SMALLEST, LARGEST = np.float32(2.0**-90), np.float32(2.0**120)
"""Between these, a float32 sum of squares keeps its relative error."""
_MATRIX = 1 << 23
_PAIRS = 1 << 13


def margin_of(stride: int) -> float:
    """Bound on the relative error of ``distances``."""
    return (stride / 32 + 10) * EPS


def distances(x: F32, y: F32) -> F32:
    """Squared distances of paired rows [n, stride] in float32; the order of operations is fixed."""
    sums = np.zeros((len(x), 32), np.float32)
    for start in reversed(range(0, x.shape[1], 32)):
        sums = _add_squares(sums, x[:, start : start + 32] - y[:, start : start + 32])
    return _fold(sums).astype(np.float32)


def _add_squares(sums: F32, x: F32) -> F32:
    """``sums + x·x``, rounded once: the fused multiply-add of the C++ kernels.

    In double precision the square is exact. The sum is rounded to odd (where it is inexact, its last
    bit is set), so that rounding it to float32 afterwards is as if it had been the first rounding.
    """
    square = x.astype(np.float64) ** 2
    wide = sums.astype(np.float64)
    total = square + wide
    with np.errstate(invalid="ignore"):  # infinite sums stay infinite
        back = total - square
        missing = (square - (total - back)) + (wide - back)
    even = (total.view(np.int64) & 1) == 0
    odd = np.nextafter(total, np.copysign(np.inf, missing))
    return np.where((missing != 0) & even, odd, total).astype(np.float32)


def precise_distances(x: F32, y: F32) -> F64:
    """The same in double precision with 16 running sums."""
    sums = np.zeros((len(x), 16))
    for start in range(0, x.shape[1], 16):
        part = slice(start, start + 16)
        difference = x[:, part].astype(np.float64) - y[:, part].astype(np.float64)
        sums += difference * difference
    return _fold(sums).astype(np.float64)


def _fold(sums: F32 | F64) -> F32 | F64:
    """Lanes i and i + 16, then i + 8, 4, 2, 1."""
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    return sums[:, 0]


def paired_values(x: F32, y: F32) -> F64:
    """What is reported for a pair: the float32 distance, or in double near over- and underflow."""
    with np.errstate(over="ignore", under="ignore"):
        near = distances(x, y)
    values = near.astype(np.float64)
    odd = ~((near >= SMALLEST) & (near <= LARGEST))
    if odd.any():
        values[odd] = precise_distances(x[odd], y[odd])
    return values


class ReferenceSearch:
    """Searches checked queries; see ``search.Searcher``."""

    def __init__(self, bank: Bank) -> None:
        sections = bank.sections
        self._bank = bank
        self._rows = np.asarray(sections["rows"], np.float32)
        self._order = np.asarray(sections["order"], np.int64)
        self._centre = np.asarray(sections["centre"], np.float32)
        self._scale = np.float32(sections["numbers"][0])
        self._longest = float(sections["numbers"][1])
        self._centred = (self._rows - self._centre) * self._scale
        self._squares = np.einsum("ij,ij->i", self._centred, self._centred, dtype=np.float64)
        self._margin = margin_of(self._rows.shape[1])

    def close(self) -> None:
        """Nothing to free."""

    def run(self, queries: F32, k: int) -> tuple[F64, I64]:
        """Squared distances and row numbers [n, k]."""
        padding = self._rows.shape[1] - queries.shape[1]
        padded = np.pad(queries, ((0, 0), (0, padding)))
        squared = np.empty((len(queries), k))
        indices = np.empty((len(queries), k), np.int64)
        block = max(1, _MATRIX // len(self._rows))
        for start in range(0, len(queries), block):
            part = padded[start : start + block]
            for i, rows in enumerate(self._candidates(part, k)):
                squared[start + i], indices[start + i] = self._nearest(part[i], rows, k)
        return squared, indices

    def _candidates(self, queries: F32, k: int) -> list[I64]:
        """For each query, the stored rows that may be among its k nearest."""
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            u = (queries - self._centre) * self._scale
            square = np.einsum("ij,ij->i", u, u, dtype=np.float64)
            rank = self._squares.astype(np.float32) - 2 * (u @ self._centred.T)
        kth = np.partition(rank, k - 1, axis=1)[:, k - 1]
        # Rounding of u, of the rows' u, of the product (any order of summation) and of the sums.
        length = np.sqrt(square)
        terms = self._longest**2 + 4 * length * self._longest + square
        slack = 2 * (queries.shape[1] + 20) * EPS * terms + 1e-30
        with np.errstate(invalid="ignore"):  # of queries that are not near
            limit = kth.astype(np.float64) + 2 * slack
        everything = np.arange(len(self._rows), dtype=np.int64)
        near = square <= 1e12
        return [
            np.flatnonzero(rank[i] <= limit[i]) if near[i] else everything
            for i in range(len(queries))
        ]

    def _nearest(self, query: F32, rows: I64, k: int) -> tuple[F64, I64]:
        """The k nearest of the candidate rows, in the order of ``bank_top.cpp``."""
        values = np.empty(len(rows))
        for start in range(0, len(rows), _PAIRS):
            part = self._rows[rows[start : start + _PAIRS]]
            values[start : start + _PAIRS] = paired_values(
                np.broadcast_to(query, part.shape), part
            )
        order = np.argsort(values, kind="stable")
        rows, values = rows[order], values[order]
        low, high = values * (1 - self._margin), values * (1 + self._margin)
        count = int(np.count_nonzero(low <= high[k - 1]))
        bounds = 1 + np.flatnonzero(low[1:count] > high[: count - 1])
        runs: list[I64] = np.split(np.arange(count), bounds)
        for run in runs:
            if run[0] < k and len(run) > 1:
                run_order = run[self._precise_order(query, rows[run])]
                rows[run], values[run] = rows[run_order], values[run_order]
        nearest: F64 = np.maximum.accumulate(values[:k])
        return nearest, self._order[rows[:k]]

    def _precise_order(self, query: F32, rows: I64) -> I64:
        part = self._rows[rows]
        exact = precise_distances(np.broadcast_to(query, part.shape), part)
        return np.lexsort((self._order[rows], exact))
