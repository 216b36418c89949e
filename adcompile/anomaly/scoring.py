"""From features to scores: PatchCore, PaDiM, EfficientAD and VAE formulas in NumPy float32.

This is the reference every other implementation (ONNX functions, generated C++) is compared
with. Sums that could overflow or cancel are written so that they do neither: the softmax weights
never exponentiate a positive number, and 1 - softmax is the sum of the *other* terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.maps import Array, Border, resize_map, upsample_blur_matrices
from adcompile.anomaly.whiten import dense_of, fits
from adcompile.contract import Score
from adcompile.errors import InputError, UsageError

Indices = npt.NDArray[np.int64]
Search = Callable[[Array, int], tuple[Array, Indices]]
"""(rows [Q, C], k) -> squared Euclidean distances ascending [Q, k], bank indices [Q, k]."""

BLOCK = 256
"""Query rows per block of :func:`blocked_search`: bounds its distance matrix."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Raw results: ``scores`` [N] and ``maps`` [N, H, W], float32."""

    scores: Array
    maps: Array


def check_rows(rows: Array, bank: Array) -> None:
    """Refuse queries that do not belong to the bank: other width, or values not finite."""
    if rows.ndim != 2 or bank.ndim != 2 or rows.shape[1] != bank.shape[1]:
        raise InputError(
            "features and bank differ in width",
            why=f"features {rows.shape}, bank {bank.shape}",
            fix="use the backbone and layers the bank was built with",
        )
    if not np.isfinite(rows).all():
        raise InputError("the features hold values that are not finite")


def blocked_search(bank: Array) -> Search:
    """Exact search by blocks of matrix products, distances recomputed for the chosen rows."""
    if bank.size == 0:
        raise InputError("the memory bank has no rows")
    norms = np.einsum("mc,mc->m", bank, bank)

    def search(rows: Array, k: int) -> tuple[Array, Indices]:
        check_rows(rows, bank)
        if not 1 <= k <= bank.shape[0]:
            raise InputError(
                "k is larger than the bank",
                why=f"k {k}, bank rows {bank.shape[0]}",
                fix="lower k or keep more rows (coreset ratio)",
            )
        distances = np.empty((rows.shape[0], k), dtype=np.float32)
        indices = np.empty((rows.shape[0], k), dtype=np.int64)
        for start in range(0, rows.shape[0], BLOCK):
            part = rows[start : start + BLOCK]
            rank = norms - 2.0 * (part @ bank.T)
            near = np.argpartition(rank, k - 1, axis=1)[:, :k] if k < bank.shape[0] else None
            near = np.tile(np.arange(k), (part.shape[0], 1)) if near is None else np.sort(near, 1)
            gaps = part[:, None, :] - bank[near]
            exact = np.einsum("qkc,qkc->qk", gaps, gaps)
            order = np.argsort(exact, axis=1, kind="stable")
            distances[start : start + BLOCK] = np.take_along_axis(exact, order, 1)
            indices[start : start + BLOCK] = np.take_along_axis(near, order, 1)
        return distances, indices

    return search


def patchcore_scores(
    rows: Array, bank: Array, grid: tuple[int, int], score: Score, search: Search | None = None
) -> Scored:
    """Raw PatchCore scores and patch maps (not enlarged) of rows [N·h·w, C].

    ``grid`` is (h, w). The map is the distance to the first neighbour in the contract's metric.
    """
    check_weighting(score, bank.shape[0])
    find = search or blocked_search(bank)
    k = score.k if score.weighting == "own_neighbours" else 1
    distances, indices = find(rows, k)
    if score.metric == "l2":
        distances = np.sqrt(distances)
    patches = grid[0] * grid[1]
    if rows.shape[0] % patches:
        raise InputError(
            "the number of rows is no multiple of the grid",
            why=f"{rows.shape[0]} rows, grid {grid}",
        )
    first = distances[:, 0].reshape(-1, patches)
    worst = first.argmax(axis=1)
    images = np.arange(first.shape[0])
    largest = first[images, worst]
    picked = worst + images * patches
    weights = _WEIGHTS[score.weighting](rows, bank, score, find, distances, indices, picked)
    return Scored(weights * largest, first.reshape(-1, *grid))


def check_weighting(score: Score, rows: int) -> None:
    """Refuse a k that the weighting or the bank cannot serve (the reference C++ scores it OK)."""
    if score.weighting == "own_neighbours" and score.k < 2:
        raise UsageError(
            "weighting by own neighbours needs k of at least 2",
            where="score.k",
            why="with k 1 the weight is always 0 and every image would be good",
            fix="weighting none, or a larger k",
        )
    if score.weighting == "own_neighbours" and score.k > rows:
        raise InputError(
            "the bank has fewer rows than k",
            where="score.k",
            why=f"k {score.k}, bank rows {rows}",
            fix="lower k, or keep more rows (coreset ratio)",
        )


def _no_weight(
    rows: Array,
    bank: Array,
    score: Score,
    find: Search,
    distances: Array,
    indices: Indices,
    picked: Indices,
) -> Array:
    del rows, bank, score, find, distances, indices
    return np.ones(picked.size, dtype=np.float32)


def _own_weight(
    rows: Array,
    bank: Array,
    score: Score,
    find: Search,
    distances: Array,
    indices: Indices,
    picked: Indices,
) -> Array:
    """1 - softmax of the farthest of the patch's own k neighbours."""
    del rows, bank, score, find, indices
    own = distances[picked]
    e = np.exp(own - own[:, -1:])
    return np.asarray(e[:, :-1].sum(axis=1) / e.sum(axis=1), dtype=np.float32)


def _paper_weight(
    rows: Array,
    bank: Array,
    score: Score,
    find: Search,
    distances: Array,
    indices: Indices,
    picked: Indices,
) -> Array:
    """1 - softmax at the nearest bank row, over that row's k nearest bank rows (itself first).

    k is clipped to the bank, as anomalib does; k 1 means no weighting there, and here.
    """
    del distances
    k = min(score.k, bank.shape[0])
    if score.k == 1:
        return np.ones(picked.size, dtype=np.float32)
    nearest = indices[picked, 0]
    _, around = find(np.ascontiguousarray(bank[nearest]), k)
    gaps = rows[picked][:, None, :] - bank[around]
    d = np.einsum("nkc,nkc->nk", gaps, gaps)
    if score.metric == "l2":
        d = np.sqrt(d)
    e = np.exp(d - d.max(axis=1, keepdims=True))
    return np.asarray(e[:, 1:].sum(axis=1) / e.sum(axis=1), dtype=np.float32)


_WEIGHTS = {"none": _no_weight, "own_neighbours": _own_weight, "paper": _paper_weight}


def finish_maps(maps: Array, score: Score, size: tuple[int, int]) -> Array:
    """Enlarge patch maps [N, h, w] to *size* and blur them, as the contract says."""
    if score.map_upsampling == "none":
        return maps
    target = score.map_size or size
    if score.blur_sigma == 0.0:
        return resize_map(maps, target, score.map_upsampling)
    grid = (int(maps.shape[-2]), int(maps.shape[-1]))
    border: Border = score.blur_border
    rows, columns = upsample_blur_matrices(
        grid, target, score.map_upsampling, score.blur_sigma, border=border
    )
    return np.asarray(rows @ maps @ columns, dtype=np.float32)


def mahalanobis_map(embedding: Array, mean: Array, inverse: Array, *, square_root: bool) -> Array:
    """PaDiM patch map [N, h, w] of an embedding [N, C, h, w].

    ``mean`` [C, P], ``inverse`` [P, C, C] (inverse covariance). Negative rounding is cut at 0.
    """
    gaps = _gaps(embedding, mean, inverse.shape == (*mean.shape[::-1], len(mean)), inverse)
    form = np.einsum("pnc,pnc->pn", gaps @ inverse, gaps)
    return _patch_map(np.maximum(form, np.float32(0)), embedding, square_root)


def whitened_map(embedding: Array, mean: Array, factor: Array, *, square_root: bool) -> Array:
    """The same map through packed triangular ``factor`` (``whiten.py``) of the inverse covariances."""
    gaps = _gaps(embedding, mean, fits(mean, factor), factor)
    white = gaps @ dense_of(factor, mean.shape[1]).transpose(0, 2, 1)
    return _patch_map(np.einsum("pnc,pnc->pn", white, white), embedding, square_root)


def _gaps(embedding: Array, mean: Array, fit: bool, matrix: Array) -> Array:
    """Differences to the mean, [P, N, C]; InputError when something does not fit."""
    count, channels, height, width = embedding.shape
    if not fit or mean.shape != (channels, height * width):
        raise InputError(
            "embedding and statistics differ in shape",
            why=f"embedding {embedding.shape}, mean {mean.shape}, covariances {matrix.shape}",
            fix="use the backbone, layers, channel index and image size the statistics come from",
        )
    rows = embedding.reshape(count, channels, -1) - mean
    return np.ascontiguousarray(rows.transpose(2, 0, 1))


def _patch_map(squared: Array, embedding: Array, square_root: bool) -> Array:
    """Squared distances [P, N] as maps [N, h, w]."""
    maps = squared.T.reshape(len(embedding), *embedding.shape[2:])
    return np.asarray(np.sqrt(maps) if square_root else maps, dtype=np.float32)


def padim_scores(maps: Array) -> Array:
    """Image scores of finished maps: their maximum."""
    return np.asarray(maps.reshape(maps.shape[0], -1).max(axis=1), dtype=np.float32)


def squared_error_map(a: Array, b: Array) -> Array:
    """Mean over channels of (a - b)²: [N, C, h, w] twice to [N, h, w]."""
    if a.shape != b.shape:
        raise InputError("tensors to compare differ in shape", why=f"{a.shape} and {b.shape}")
    gap = a - b
    return np.asarray(np.mean(gap * gap, axis=1), dtype=np.float32)


MAP_LOW, MAP_HIGH = 0.9, 0.995
"""EfficientAD: which quantiles of a map's values on good images become 0 and MAP_VALUE."""
MAP_VALUE = 0.1
MAP_SHARE = 0.5
"""Weight of each of the two maps in their sum."""


@dataclass(frozen=True, slots=True)
class Scale:
    """``gain · map - shift`` is one map's contribution to the sum; both are float32 numbers."""

    gain: float
    shift: float


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Low (0.9) and high (0.995) quantiles of EfficientAD's two maps on good images."""

    student_low: float
    student_high: float
    autoencoder_low: float
    autoencoder_high: float

    def scales(self) -> tuple[Scale, Scale]:
        """Of the student's and the autoencoder's map; InputError when a range is empty."""
        return (
            _scale(self.student_low, self.student_high),
            _scale(self.autoencoder_low, self.autoencoder_high),
        )


def _scale(low: float, high: float) -> Scale:
    if not high > low:
        raise InputError("a quantile pair is empty", why=f"low {low}, high {high}")
    gain = np.float32(MAP_SHARE * MAP_VALUE / (high - low))
    return Scale(float(gain), float(np.float32(gain * low)))


def quantiles_of(student: Sequence[Array], autoencoder: Sequence[Array]) -> Quantiles:
    """From both error maps of normal images; InputError when a map hardly varies."""
    ends: list[float] = []
    for maps in (student, autoencoder):
        values = np.concatenate([each.reshape(-1) for each in maps])
        ends += [float(np.quantile(values, q)) for q in (MAP_LOW, MAP_HIGH)]
    if not (ends[1] > ends[0] and ends[3] > ends[2]):
        raise InputError("the error maps of normal images are constant", why=f"quantiles {ends}")
    return Quantiles(*ends)


def efficientad_scores(
    teacher: Array,
    student: Array,
    autoencoder: Array,
    quantiles: Quantiles,
    size: tuple[int, int],
    *,
    pad: int = 4,
) -> Scored:
    """EfficientAD maps [N, H, W] and their maxima.

    ``teacher`` [N, C, h, w] is already normalised by its channel statistics; ``student``
    [N, 2C, h, w] predicts teacher and autoencoder; the two error maps are zero-padded by *pad*
    cells, enlarged bilinearly, scaled to 0.1·(x - low) / (high - low) and averaged.
    """
    channels = teacher.shape[1]
    if student.shape[1] != 2 * channels:
        raise InputError(
            "the student needs twice the teacher's channels",
            why=f"teacher {teacher.shape}, student {student.shape}",
        )
    pairs = ((teacher, student[:, :channels]), (autoencoder, student[:, channels:]))
    grid = (int(teacher.shape[2]), int(teacher.shape[3]))
    rows, columns = upsample_blur_matrices(grid, size, "bilinear", pad=pad)
    total = np.zeros((teacher.shape[0], *size), dtype=np.float32)
    for (goal, guess), scale in zip(pairs, quantiles.scales(), strict=True):
        enlarged = rows @ squared_error_map(goal, guess) @ columns
        total += np.float32(scale.gain) * enlarged - np.float32(scale.shift)
    return Scored(padim_scores(total), total)


def vae_scores(image: Array, reconstruction: Array) -> Scored:
    """Reconstruction error on the scale the network was trained on (0…1): mean per image, map."""
    maps = squared_error_map(image, reconstruction)
    return Scored(np.asarray(maps.reshape(maps.shape[0], -1).mean(axis=1), dtype=np.float32), maps)
