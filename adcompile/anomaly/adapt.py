"""Whitening: an affine map of the embedding, learned from normal patches, as a 1×1 convolution.

It turns distances in the bank into Mahalanobis-like ones (directions that hardly vary between
normal patches count more) and can drop directions, which makes the search cheaper. It is a
property of the network, not of the score: every preset's formula stays what it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.anomaly.heads import GraphWriter
from adcompile.anomaly.maps import Array
from adcompile.errors import InputError, UsageError

MAX_SAMPLES = 200_000


@dataclass(frozen=True, eq=False)
class Whitening:
    """``rows @ matrix + offset``: ``matrix`` [C, D], ``offset`` [D], float32."""

    matrix: Array
    offset: Array

    def apply(self, rows: Array) -> Array:
        """Whitened rows [N, D]."""
        return np.asarray(rows @ self.matrix + self.offset, dtype=np.float32)


def fit_whitening(rows: Array, shrink: float, columns: int = 0) -> Whitening:
    """Principal axes of the rows, each divided by sqrt(variance + shrink · mean variance).

    ``columns`` keeps only the axes with the largest variance; 0 keeps all. At most 200,000 rows,
    evenly spaced, are looked at.
    """
    if not 0.0 < shrink <= 1.0:
        raise UsageError("whiten must lie in (0, 1]", why=f"got {shrink}")
    if columns > rows.shape[1]:
        raise UsageError("more columns asked for than the embedding has", why=f"{columns}")
    step = max(1, len(rows) // MAX_SAMPLES)
    sample = rows[::step].astype(np.float64)
    mean = sample.mean(axis=0)
    centred = sample - mean
    covariance = centred.T @ centred / max(len(sample) - 1, 1)
    if not np.trace(covariance) > 0:
        raise InputError(
            "all features are equal",
            why="the images or the network carry no information",
            fix="check images and weights",
        )
    values: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]
    values, axes = np.linalg.eigh(covariance)
    kept = slice(None, None, -1) if not columns else slice(None, -columns - 1, -1)
    values, axes = np.maximum(values[kept], 0.0), axes[:, kept]
    # the sign of an eigenvector is arbitrary: make its largest entry positive
    peaks = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    floor = shrink * np.trace(covariance) / len(covariance)
    matrix = axes * np.sign(peaks) / np.sqrt(values + floor)
    return Whitening(matrix.astype(np.float32), (-mean @ matrix).astype(np.float32))


def add_whitening(writer: GraphWriter, embedding: ir.Value, whitening: Whitening) -> ir.Value:
    """The map as a 1×1 convolution on the embedding [N, C, h, w]."""
    weight = np.ascontiguousarray(whitening.matrix.T)[:, :, None, None]
    inputs = [
        embedding,
        writer.constant("whitening_weight", weight),
        writer.constant("whitening_bias", whitening.offset),
    ]
    attributes = {"kernel_shape": [1, 1], "pads": [0] * 4, "strides": [1, 1]}
    return writer.one("Conv", inputs, attributes, name="whitened")
