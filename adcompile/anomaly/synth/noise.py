"""Fields that textures and defects are made of: smooth noise, cells, coordinates, warps."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float64]
Random = np.random.Generator


def coordinates(size: int) -> tuple[Field, Field]:
    """Pixel centres (y, x) of a square image, from 0 to 1."""
    line = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(line, line, indexing="ij")
    return y, x


@lru_cache(maxsize=64)
def _spline(size: int, cells: int) -> Field:
    """[size, cells + 3] cubic B-spline weights: smooth interpolation of a coarse grid."""
    at = (np.arange(size) + 0.5) / size * cells
    first = np.minimum(np.floor(at).astype(np.int64), cells - 1)
    t = at - first
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    matrix = np.zeros((size, cells + 3))
    for offset, weight in enumerate(weights):
        matrix[np.arange(size), first + offset] += weight
    return matrix


def noise(random: Random, size: int, rows: int, columns: int | None = None) -> Field:
    """Smooth noise with *rows* × *columns* bumps, roughly within -1…1."""
    across = rows if columns is None else columns
    grid = random.standard_normal((rows + 3, across + 3))
    return np.asarray(_spline(size, rows) @ grid @ _spline(size, across).T)


def fractal(random: Random, size: int, cells: int, octaves: int = 4) -> Field:
    """Sum of ever finer and weaker noise."""
    total = np.zeros((size, size))
    for octave in range(octaves):
        total += noise(random, size, min(cells << octave, size)) / (1 << octave)
    return total


def cells(random: Random, size: int, count: int, jitter: float = 0.8) -> tuple[Field, Field]:
    """Distances to the nearest and second nearest of jittered grid points, in cell widths."""
    y, x = coordinates(size)
    shift = (random.random((2, count + 2, count + 2)) - 0.5) * jitter
    row = np.floor(y * count).astype(np.int64)
    column = np.floor(x * count).astype(np.int64)
    near = np.full((size, size), np.inf)
    second = np.full((size, size), np.inf)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            r, c = row + dy, column + dx
            py = r + 0.5 + shift[0, r + 1, c + 1]
            px = c + 0.5 + shift[1, r + 1, c + 1]
            distance = np.hypot(y * count - py, x * count - px)
            second = np.minimum(second, np.maximum(near, distance))
            near = np.minimum(near, distance)
    return near, second


def smoothstep(low: float, high: float, value: Field) -> Field:
    """0 below *low*, 1 above *high*, smooth between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def colour(
    field: Field, dark: tuple[float, float, float], light: tuple[float, float, float]
) -> Field:
    """Blend two RGB colours by a field (0 dark, 1 light): [S, S, 3]."""
    low, high = np.asarray(dark), np.asarray(light)
    return np.asarray(low + field[..., None] * (high - low))


def sample(image: Field, y: Field, x: Field) -> Field:
    """Bilinear look-up of an [S, S, 3] image at pixel positions, edges clamped."""
    size = image.shape[0]
    y = np.clip(y, 0.0, size - 1.001)
    x = np.clip(x, 0.0, size - 1.001)
    top, left = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    down, right = (y - top)[..., None], (x - left)[..., None]
    upper = image[top, left] * (1 - right) + image[top, left + 1] * right
    lower = image[top + 1, left] * (1 - right) + image[top + 1, left + 1] * right
    return np.asarray(upper * (1 - down) + lower * down)
