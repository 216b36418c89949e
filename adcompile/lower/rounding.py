"""Weights on a grid with the least error of a layer's *output*, not of the weights themselves.

Two closed-form steps on one factorisation. The weights move to where they best reproduce the float
layer's outputs from the inputs the quantized network really delivers (ridge regression). Then columns
are rounded one after another, and what rounding one column spoils is made up for by the columns not yet
rounded (optimal brain compression, as in GPTQ).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adcompile.lower.grid import Grid
from adcompile.lower.threads import workers

Floats = npt.NDArray[np.float32]
Stored = npt.NDArray[np.generic]
BLOCK = 48  # columns rounded before the rest is updated
BASE = 128  # triangular matrices up to this size are inverted directly
CHUNK = 576  # columns factorised together: time grows with its square, accuracy hardly at all
DAMP = 0.3  # times columns over rows: few rows say little about many columns
LEAST_DAMP = 0.01
HELD_OUT = 4  # one row in so many checks the regression
LEAST_ROWS = 16
GAIN_LIMITS = (0.25, 1.1)


@dataclass(frozen=True)
class Layer:
    """A layer as a matrix product. ``inputs``: positions by K, as the quantized network gives them;
    ``targets``: positions by O, the float layer's outputs without bias; ``weight``: O by K; ``steps``:
    the grid's step for every output (O)."""

    inputs: Floats
    targets: Floats
    weight: Floats
    steps: Floats


def output_gains(outputs: Floats, targets: Floats) -> Floats:
    """Per output, the factor that brings *outputs* closest to *targets* (both positions by O).

    Below 1 where noise has taken part of the signal: the best estimate of a noisy value is smaller.
    """
    have = outputs - outputs.mean(axis=0)
    wanted = targets - targets.mean(axis=0)
    power = np.square(have).sum(axis=0)
    agreement = (have * wanted).sum(axis=0)
    gains = np.where(power > 0.0, agreement / np.maximum(power, 1e-30), 1.0)
    return np.clip(gains, *GAIN_LIMITS).astype(np.float32)


def fit_and_round(layer: Layer, grid: Grid) -> Stored:
    """Integers for the layer's weight (O by K)."""
    inputs = layer.inputs - layer.inputs.mean(axis=0)
    left = layer.targets - layer.targets.mean(axis=0) - inputs @ layer.weight.T
    stored = np.empty(layer.weight.shape, np.float32)
    columns = layer.weight.shape[1]
    pieces = -(-columns // CHUNK)
    spans = [slice(columns * i // pieces, columns * (i + 1) // pieces) for i in range(pieces)]
    with ThreadPoolExecutor(min(workers(), pieces)) as pool:
        factors = list(pool.map(_factor, [inputs[:, span] for span in spans]))
    for span, (factor, order) in zip(spans, factors, strict=True):
        part, weight = inputs[:, span], layer.weight[:, span]
        if factor is None:
            stored[:, span] = _nearest(weight, grid, layer.steps)
        else:
            moved = weight + _correction(part, left, factor, order)
            stored[:, span] = _round(moved, grid, layer.steps, factor, order)
        left -= part @ (stored[:, span] * layer.steps[:, None] - weight).T
    return stored.astype(grid.dtype)


def _factor(inputs: Floats) -> tuple[Floats | None, npt.NDArray[np.intp]]:
    """Columns by falling power, and upper triangular U, ``U.T @ U`` = inverse of their moments."""
    moments = inputs.T @ inputs / np.float32(max(inputs.shape[0], 1))
    diagonal = np.diag(moments)
    order = np.argsort(-diagonal, kind="stable")
    level = float(diagonal.mean())
    if not level > 0.0:
        return None, order
    moments = moments[order][:, order]
    damp = max(LEAST_DAMP, DAMP * inputs.shape[1] / max(inputs.shape[0], 1))
    moments[np.diag_indices_from(moments)] += np.float32(damp * level)
    try:
        # reversed order turns the lower factor of the matrix into the upper one of its inverse
        lower = np.linalg.cholesky(moments[::-1, ::-1])
    except np.linalg.LinAlgError:
        return None, order
    return _triangular_inverse(np.ascontiguousarray(lower[::-1, ::-1], np.float32)), order


def _triangular_inverse(upper: Floats) -> Floats:
    """Inverse of an upper triangular matrix, by halves (products are fast, general inverses are not)."""
    size = upper.shape[0]
    if size <= BASE:
        return np.triu(np.linalg.inv(upper)).astype(np.float32)
    half = size // 2
    first = _triangular_inverse(upper[:half, :half])
    last = _triangular_inverse(upper[half:, half:])
    inverse = np.zeros_like(upper)
    inverse[:half, :half] = first
    inverse[half:, half:] = last
    inverse[:half, half:] = -(first @ upper[:half, half:] @ last)
    return inverse


def _correction(
    inputs: Floats, left: Floats, factor: Floats, order: npt.NDArray[np.intp]
) -> Floats:
    """The change of weights that explains *left*, scaled by how well it does on held-out rows."""
    rows = inputs.shape[0]
    test = np.zeros(rows, bool)
    test[rows - rows // HELD_OUT :] = True
    if rows < LEAST_ROWS:
        return np.zeros((left.shape[1], inputs.shape[1]), np.float32)
    learned = inputs[~test][:, order]
    slope = (left[~test].T @ learned) / np.float32(rows)
    change = np.empty((left.shape[1], inputs.shape[1]), np.float32)
    change[:, order] = (slope @ factor.T) @ factor
    guess = inputs[test] @ change.T
    power = float(np.square(guess, dtype=np.float64).sum())
    agreement = float(np.multiply(guess, left[test], dtype=np.float64).sum())
    share = min(max(agreement / power, 0.0), 1.0) if power > 0.0 else 0.0
    return change * np.float32(share)


def _round(
    weight: Floats, grid: Grid, steps: Floats, factor: Floats, order: npt.NDArray[np.intp]
) -> Floats:
    low, high = (np.float32(x) for x in grid.limits)
    inverse = np.float32(1.0) / steps
    left = np.ascontiguousarray(weight.T[order])  # K by O: a column of the weight is a row here
    stored = np.empty_like(left)
    columns = left.shape[0]
    errors = np.empty((BLOCK, left.shape[1]), np.float32)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        for i in range(start, stop):
            row = np.rint(left[i] * inverse, out=stored[i])
            np.maximum(row, low, out=row)
            np.minimum(row, high, out=row)
            error = np.subtract(left[i], row * steps, out=errors[i - start])
            error /= factor[i, i]
            left[i + 1 : stop] -= factor[i, i + 1 : stop, None] * error
        if stop < columns:
            left[stop:] -= factor[start:stop, stop:].T @ errors[: stop - start]
    result = np.empty_like(weight)
    result[:, order] = stored.T
    return result


def _nearest(weight: Floats, grid: Grid, steps: Floats) -> Floats:
    low, high = grid.limits
    rounded: Floats = np.clip(np.rint(weight / steps[:, None]), low, high)
    return rounded
