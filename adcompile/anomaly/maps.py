"""Feature maps and anomaly maps in NumPy float32: pooling, resizing, blur. No torch.

Conventions (each is a choice the reference systems make differently, so each has a name):

* ``nearest``: source = floor(target · in / out), as torch, ONNX ``asymmetric``+``floor`` and the
  cell repetition of the MindSpore system do;
* ``bilinear``: half-pixel centres, edges clamped, no antialiasing (torch ``align_corners=False``,
  OpenCV ``INTER_LINEAR``);
* Gaussian blur: taps exp(-x²/2σ²) normalised, radius int(4σ + 0.5), so σ 4 has 33 taps; border
  ``reflect`` leaves the edge pixel out (torch, kornia), ``symmetric`` repeats it (SciPy).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from adcompile.errors import InputError, UsageError

Array = npt.NDArray[np.float32]
Upsampling = Literal["nearest", "bilinear"]
Border = Literal["reflect", "symmetric"]


def average_pool(features: Array) -> Array:
    """Mean of 3×3 neighbourhoods, stride 1, zero padding 1, always divided by 9. [N, C, H, W]."""
    height, width = features.shape[-2:]
    wide = np.zeros((*features.shape[:-1], width + 2), dtype=np.float32)
    wide[..., 1:-1] = features
    across = wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]
    tall = np.zeros((*features.shape[:-2], height + 2, width), dtype=np.float32)
    tall[..., 1:-1, :] = across
    total = tall[..., :-2, :] + tall[..., 1:-1, :] + tall[..., 2:, :]
    return np.asarray(total / np.float32(9.0), dtype=np.float32)


@lru_cache(maxsize=64)
def _resize_matrix(mode: str, source: int, target: int) -> npt.NDArray[np.float64]:
    matrix = np.zeros((target, source))
    rows = np.arange(target)
    if mode == "nearest":
        matrix[rows, np.minimum(rows * source // target, source - 1)] = 1.0
        return matrix
    centre = np.clip((rows + 0.5) * source / target - 0.5, 0.0, source - 1.0)
    low = np.minimum(np.floor(centre).astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    share = centre - low
    np.add.at(matrix, (rows, low), 1.0 - share)
    np.add.at(matrix, (rows, high), share)
    return matrix


def resize_matrix(mode: Upsampling, source: int, target: int) -> npt.NDArray[np.float64]:
    """[target, source] matrix of a one-dimensional resize."""
    if source < 1 or target < 1:
        raise UsageError("sizes must be at least 1", why=f"{source} to {target}")
    return _resize_matrix(mode, source, target).copy()


def gaussian_taps(sigma: float) -> npt.NDArray[np.float64]:
    """Normalised taps, 2·int(4σ + 0.5) + 1 of them."""
    radius = int(4.0 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1, dtype=np.float64)
    taps = np.exp(-0.5 * (offsets / sigma) ** 2)
    return np.asarray(taps / taps.sum(), dtype=np.float64)


@lru_cache(maxsize=64)
def _blur_matrix(size: int, sigma: float, border: str) -> npt.NDArray[np.float64]:
    if sigma <= 0:
        return np.eye(size)
    taps = gaussian_taps(sigma)
    radius = taps.size // 2
    places = np.pad(
        np.arange(size), radius, mode="reflect" if border == "reflect" else "symmetric"
    )
    matrix = np.zeros((size, size))
    for row in range(size):
        np.add.at(matrix[row], places[row : row + taps.size], taps)
    return matrix


def upsample_blur_matrices(
    grid: tuple[int, int],
    size: tuple[int, int],
    mode: Upsampling,
    sigma: float = 0.0,
    *,
    border: Border = "reflect",
    pad: int = 0,
) -> tuple[Array, Array]:
    """Two matrices that zero-pad, enlarge and blur a map: ``rows @ map @ columns``.

    ``grid`` and ``size`` are (height, width) before and after; ``pad`` cells of zeros are put
    around the map first (EfficientAD). Returns float32 [H, h] and [w, W].
    """
    sides: list[npt.NDArray[np.float64]] = []
    for source, target in zip(grid, size, strict=True):
        enlarge = resize_matrix(mode, source + 2 * pad, target)
        whole = _blur_matrix(target, sigma, border) @ enlarge
        sides.append(whole[:, pad : pad + source])
    rows, columns = sides
    return rows.astype(np.float32), np.ascontiguousarray(columns.T.astype(np.float32))


def resize_map(maps: Array, size: tuple[int, int], mode: Upsampling) -> Array:
    """Resize the last two axes to (height, width)."""
    if maps.shape[-2:] == size:
        return maps
    rows, columns = upsample_blur_matrices((maps.shape[-2], maps.shape[-1]), size, mode)
    if mode == "nearest":
        picked = maps[..., np.argmax(rows, axis=1), :]
        return np.ascontiguousarray(picked[..., np.argmax(columns, axis=0)])
    return np.asarray(rows @ maps @ columns, dtype=np.float32)


def blur_map(maps: Array, sigma: float, border: Border = "reflect") -> Array:
    """Gaussian blur of the last two axes."""
    size = (maps.shape[-2], maps.shape[-1])
    rows, columns = upsample_blur_matrices(size, size, "nearest", sigma, border=border)
    return np.asarray(rows @ maps @ columns, dtype=np.float32)


def embed(features: Sequence[Array], upsampling: Upsampling, *, pool: bool = True) -> Array:
    """Patch embedding [N, C, h, w] of several feature maps [N, C_i, h_i, w_i].

    Each map is average-pooled (PatchCore) or not (PaDiM); deeper ones are enlarged to the first
    one's grid; channels are concatenated in the order given.
    """
    if not features:
        raise InputError("no feature map to embed")
    for index, layer in enumerate(features):
        if layer.ndim != 4 or layer.shape[0] != features[0].shape[0]:
            raise InputError(
                "feature maps must be [N, C, H, W] with one N",
                where=f"feature map {index}",
                why=f"shape {layer.shape}, first {features[0].shape}",
            )
    first = features[0].shape
    size = (int(first[2]), int(first[3]))
    layers = [np.asarray(layer, dtype=np.float32) for layer in features]
    if pool:
        layers = [average_pool(layer) for layer in layers]
    return np.concatenate([resize_map(layer, size, upsampling) for layer in layers], axis=1)


def patch_rows(embedding: Array) -> Array:
    """[N, C, h, w] as rows [N·h·w, C]: image by image, row-major within the map."""
    count, channels = embedding.shape[:2]
    moved = embedding.reshape(count, channels, -1).transpose(0, 2, 1)
    return np.ascontiguousarray(moved.reshape(-1, channels))
