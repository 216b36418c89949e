"""Points as int8 codes with a bound on their error: what the search's kernels multiply.

A point is a step times its codes, and for some points one more float coordinate. How the terms
beside the codes are used, and why nothing is lost, is shown in ``bank_bounds.cpp``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Array = NDArray[np.generic]

LANES = 16
"""Rows of a panel."""
FAR = np.float32(1e30)
"""Stands for "never near" in the padding of the last panel."""


@dataclass(frozen=True, eq=False)
class Int8Copy:
    """Codes [M, n] and terms [3 or 4, M]: step, |point|² − e², error length e, float coordinate."""

    codes: NDArray[np.int8]
    terms: F32


def up(values: F64 | np.float64) -> Array:
    """Round to float32 upwards, and past the errors of the double arithmetic behind it."""
    return np.nextafter((values * (1 + 1e-12)).astype(np.float32), np.float32(np.inf))


def int8_copy(values: F64, rest: F64 | None = None) -> Int8Copy:
    """Approximate the points ``values`` [M, n], with *rest* [M] as one more coordinate."""
    steps = (np.abs(values).max(axis=1) / 127).astype(np.float32)
    steps = np.where(steps > 0, steps, np.float32(1)).astype(np.float32)
    wide = steps.astype(np.float64)[:, None]
    codes = np.clip(np.rint(values / wide), -127, 127)
    miss = np.square(values - codes * wide).sum(axis=1)
    square = np.square(codes * wide).sum(axis=1)
    kept: list[Array] = []
    if rest is not None:
        narrow = rest.astype(np.float32)
        miss = miss + np.square(rest - narrow)
        square = square + np.square(narrow.astype(np.float64))
        kept = [narrow]
    error = up(np.sqrt(miss))
    base = (square - error.astype(np.float64) ** 2).astype(np.float32)
    return Int8Copy(
        codes.astype(np.int8), np.stack([steps, base, error, *kept]).astype(np.float32)
    )


def code_panels(codes: NDArray[np.int8]) -> NDArray[np.int8]:
    """[M, n] to [P, n/4, 64]: four columns of 16 rows side by side."""
    count, columns = codes.shape
    panels = -(-count // LANES)
    whole = np.pad(codes, ((0, panels * LANES - count), (0, 0)))
    blocks = whole.reshape(panels, LANES, columns // 4, 4).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(blocks).reshape(panels, columns // 4, 4 * LANES)


def term_panels(terms: F32) -> F32:
    """[n, M] to [P, n, 16]; the padding is too far from everything."""
    count, rows = terms.shape
    panels = -(-rows // LANES)
    out = np.zeros((count, panels * LANES), np.float32)
    out[1] = FAR
    out[:, :rows] = terms
    return np.ascontiguousarray(out.reshape(count, panels, LANES).transpose(1, 0, 2))
