"""PaDiM from any ONNX feature network: a Gaussian per patch, and the detector as one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.anomaly import heads, ops
from adcompile.anomaly.backbone import Backbone
from adcompile.anomaly.config import PadimConfig
from adcompile.anomaly.images import batches
from adcompile.anomaly.maps import Array, embed
from adcompile.anomaly.presets import Preset
from adcompile.anomaly.samples import Sample
from adcompile.anomaly.whiten import CHUNK, Packer
from adcompile.contract import Preprocess, Score
from adcompile.errors import InputError, UsageError

Watch = Callable[[str, int, int], None]
Index = npt.NDArray[np.int64]

DIMENSIONS = {448: 100, 1792: 550}
"""Published feature counts by the width of the three layers: resnet18, wide_resnet50_2."""

FILTER_COVARIANCE, FILTER_POOLED = 1e-4, 30
"""What the built-in filters need instead of the preset's 0.01 and 0: their features are smaller,
and vary along fewer directions, than a deep network's."""

MAX_STATISTICS_BYTES = 8 << 30


@dataclass(frozen=True, eq=False)
class Gaussian:
    """``mean`` [C, P] and inverse covariance ``inverse`` [P, C, C] of the channels ``index``.

    ``factor``: the packed triangular factors of the inverse (``whiten.py``), from the covariance in
    double precision; with an almost singular covariance they know more digits than ``inverse``.
    """

    mean: Array
    inverse: Array
    index: Index
    factor: Array


def channel_index(total: int, features: int, seed: int) -> Index:
    """A random choice of channels, in random order, as the reference systems keep it.

    *features* 0 takes the published number for that width, or all channels.
    """
    count = features or DIMENSIONS.get(total, total)
    if not 0 < count <= total:
        raise UsageError(
            "features must be between 1 and the number of channels", why=f"{count} of {total}"
        )
    return np.random.default_rng(seed).permutation(total)[:count].astype(np.int64)


def fit_gaussian(
    run: Callable[[Array], Sequence[Array]],
    samples: Sequence[Sample],
    spec: Preprocess,
    index: Index,
    regulariser: float,
    *,
    pooled_images: int = 0,
    batch: int = 8,
    watch: Watch | None = None,
) -> Gaussian:
    """Mean and inverse covariance (unbiased, plus regulariser times identity) of every patch.

    ``pooled_images`` adds that many images' worth of the covariance that all patches share: a
    patch seen on a few dozen images cannot tell the spread of every direction by itself. 0 is the
    published formula. Two passes over the images, so that sums stay in double precision and
    memory holds one covariance per patch and nothing per image. Raises InputError for fewer than
    two images.
    """
    if len(samples) == 1:
        raise InputError(
            "PaDiM needs at least two training images", why="a spread has to be measured"
        )
    total: npt.NDArray[np.float64] | None = None
    for part in _embedded(run, samples, spec, index, batch, "mean", watch):
        sums = part.sum(axis=0, dtype=np.float64)
        total = sums if total is None else total + sums
    if total is None:
        raise InputError("there is no image to take features from")
    mean = total / len(samples)
    channels, patches = mean.shape
    if patches * channels * channels * 8 > MAX_STATISTICS_BYTES:
        raise UsageError(
            "the covariances do not fit in memory",
            why=f"{patches} patches × {channels}² channels",
            fix="fewer --features, or a smaller image",
        )
    scatter = np.zeros((patches, channels, channels))
    for part in _embedded(run, samples, spec, index, batch, "covariance", watch):
        gap = (part - mean).transpose(2, 1, 0)
        scatter += gap @ gap.transpose(0, 2, 1)
    degrees = len(samples) - 1
    covariance = scatter / degrees
    if pooled_images:
        share = pooled_images / (degrees + pooled_images)
        covariance += share * (covariance.mean(axis=0) - covariance)
    covariance[:, np.arange(channels), np.arange(channels)] += regulariser
    inverse, factor = invert(covariance)
    return Gaussian(mean.astype(np.float32), inverse, index, factor)


def invert(covariance: npt.NDArray[np.float64]) -> tuple[Array, Array]:
    """Inverses of symmetric positive matrices [P, C, C], symmetric to the bit, and their packed
    factors (``whiten.py``): L⁻¹ is the factor of the inverse where L·Lᵀ is the covariance."""
    identity = np.eye(covariance.shape[1])
    inverse = np.empty(covariance.shape, dtype=np.float32)
    packer = Packer(*covariance.shape[:2])
    for start in range(0, len(covariance), CHUNK):
        part = covariance[start : start + CHUNK]
        try:
            lower = np.asarray(np.linalg.cholesky(part), dtype=np.float64)
        except np.linalg.LinAlgError:
            raise InputError(
                "a covariance is not positive definite",
                where=f"patches {start} to {start + len(part) - 1}",
                fix="a larger --covariance, or more training images",
            ) from None
        half = np.asarray(np.linalg.solve(lower, identity[np.newaxis]), dtype=np.float64)
        inverse[start : start + CHUNK] = half.transpose(0, 2, 1) @ half
        packer.add(half)
    return inverse, packer.packed


def _embedded(
    run: Callable[[Array], Sequence[Array]],
    samples: Sequence[Sample],
    spec: Preprocess,
    index: Index,
    batch: int,
    what: str,
    watch: Watch | None,
) -> Iterator[Array]:
    """Chosen channels of every batch, [n, C, P]."""
    for number, images in enumerate(batches(samples, spec, batch)):
        embedding = embed(list(run(images)), "nearest", pool=False)[:, index]
        if not np.isfinite(embedding).all():
            raise InputError(
                "the feature network gives values that are not finite",
                where=str(samples[number * batch].path),
            )
        if watch is not None:
            watch(what, min((number + 1) * batch, len(samples)), len(samples))
        yield embedding.reshape(*embedding.shape[:2], -1)


def regularisers(config: PadimConfig, chosen: Preset) -> tuple[float, int]:
    """Multiple of the identity and pooled images: the configuration's, or the network's habit."""
    filters = config.backbone == "filters"
    identity = config.covariance or (FILTER_COVARIANCE if filters else chosen.covariance)
    pooled = config.pooled_images
    return identity, (FILTER_POOLED if filters else 0) if pooled is None else pooled


def score_of(config: PadimConfig, chosen: Preset) -> Score:
    """The preset's score with the configuration's root and blur."""
    changes: dict[str, object] = {}
    if config.square_root is not None:
        changes["square_root"] = config.square_root
    if config.blur_sigma is not None:
        changes["blur_sigma"] = config.blur_sigma
    return chosen.score.model_copy(update=changes)


def build_model(
    backbone: Backbone, gaussian: Gaussian, score: Score, spec: Preprocess
) -> ir.Model:
    """Image to score and map in one graph; statistics are the constants ``mean`` and ``factor``."""
    writer, layers = heads.begin(backbone)
    embedding = heads.add_embedding(writer, layers, backbone.grids, "nearest", pool=False)
    chosen = writer.constant("channel_index", gaussian.index)
    embedding = writer.one("Gather", [embedding, chosen], {"axis": 1}, name="chosen_channels")
    inputs = [
        embedding,
        writer.constant("mean", gaussian.mean),
        writer.constant("factor", gaussian.factor),
    ]
    patch_map = writer.one("WhitenedMap", inputs, domain=ops.DOMAIN)
    if score.square_root:
        patch_map = writer.one("Sqrt", [patch_map])
    grid = backbone.grids[0]
    patch_map.shape = ir.Shape([None, 1, *grid])
    anomaly_map = heads.add_map(writer, patch_map, grid, spec.size, score)
    return heads.finish(writer, heads.add_maximum(writer, anomaly_map), anomaly_map, score, spec)
