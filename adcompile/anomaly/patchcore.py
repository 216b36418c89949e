"""PatchCore from any ONNX feature network: memory bank, and the whole detector as one graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from adcompile.anomaly import heads
from adcompile.anomaly.adapt import Whitening, add_whitening
from adcompile.anomaly.backbone import Backbone, FeatureRunner
from adcompile.anomaly.config import PatchcoreConfig
from adcompile.anomaly.images import batches
from adcompile.anomaly.maps import Array, Upsampling, embed, patch_rows
from adcompile.anomaly.presets import Preset
from adcompile.anomaly.samples import Sample
from adcompile.anomaly.selection import choose_rows, row_count
from adcompile.contract import Preprocess, Score
from adcompile.errors import InputError, UsageError

Watch = Callable[[str, int, int], None]
MAX_FEATURE_BYTES = 16 << 30


def collect_rows(
    run: Callable[[Array], Sequence[Array]],
    samples: Sequence[Sample],
    spec: Preprocess,
    upsampling: Upsampling,
    *,
    batch: int = 8,
    watch: Watch | None = None,
) -> Array:
    """Patch rows [N·h·w, C] of all samples, in their order, through a feature network."""
    rows: Array | None = None
    filled = 0
    for index, images in enumerate(batches(samples, spec, batch)):
        part = patch_rows(embed(list(run(images)), upsampling))
        if not np.isfinite(part).all():
            raise InputError(
                "the feature network gives values that are not finite",
                where=str(samples[index * batch].path),
            )
        if rows is None:
            per_image = part.shape[0] // images.shape[0]
            rows = _allocate(len(samples) * per_image, part.shape[1])
        rows[filled : filled + len(part)] = part
        filled += len(part)
        if watch is not None:
            watch("features", min((index + 1) * batch, len(samples)), len(samples))
    if rows is None:
        raise InputError("there is no image to take features from")
    return rows


def _allocate(count: int, columns: int) -> Array:
    if count * columns * 4 > MAX_FEATURE_BYTES:
        raise UsageError(
            "the features of all images do not fit",
            why=f"{count} rows × {columns} columns are {count * columns * 4 >> 30} GiB",
            fix="fewer images, a smaller image size, or fewer layers",
        )
    return np.empty((count, columns), dtype=np.float32)


def build_bank(
    rows: Array, config: PatchcoreConfig, chosen: Preset, watch: Watch | None = None
) -> Array:
    """The memory bank [M, C]: un-projected rows in the order of selection."""
    if rows.shape[0] > 1 and not np.ptp(rows, axis=0).any():
        raise InputError(
            "all features are equal",
            why="the images or the network carry no information",
            fix="check images and weights",
        )
    count = row_count(len(rows), config.coreset_ratio, config.coreset_rows)
    if watch is not None:
        watch("coreset", 0, 1)
    indices = choose_rows(
        rows, count, seed=config.seed, projection=config.projection, first=chosen.first_centre
    )
    if watch is not None:
        watch("coreset", 1, 1)
    return np.ascontiguousarray(rows[indices])


def score_of(config: PatchcoreConfig, chosen: Preset, rows: int) -> Score:
    """The preset's score with the configuration's k; refuses a k the bank cannot serve."""
    score = chosen.score if not config.k else chosen.score.model_copy(update={"k": config.k})
    if score.weighting == "own_neighbours" and score.k > rows:
        raise UsageError(
            "the bank has fewer rows than k",
            why=f"k {score.k}, {rows} rows",
            fix="a larger coreset_ratio, or a smaller k",
        )
    return score


def build_model(
    backbone: Backbone,
    bank: Array,
    score: Score,
    spec: Preprocess,
    upsampling: Upsampling,
    whitening: Whitening | None = None,
) -> ir.Model:
    """Image to score and map in one graph, the bank as the constant ``memory_bank``."""
    writer, layers = heads.begin(backbone)
    embedding = heads.add_embedding(writer, layers, backbone.grids, upsampling, pool=True)
    if whitening is not None:
        embedding = add_whitening(writer, embedding, whitening)
    rows = heads.add_patch_rows(writer, embedding, bank.shape[1])
    grid = backbone.grids[0]
    raw, patch_map = heads.add_patchcore(writer, rows, bank, grid, score)
    patch_map.shape = ir.Shape([None, 1, *grid])
    anomaly_map = heads.add_map(writer, patch_map, grid, spec.size, score)
    return heads.finish(writer, raw, anomaly_map, score, spec)


def features_of(
    backbone: Backbone,
    samples: Sequence[Sample],
    spec: Preprocess,
    upsampling: Upsampling,
    *,
    batch: int = 8,
    watch: Watch | None = None,
    device: str = "cpu",
) -> Array:
    """Patch rows of samples through a backbone."""
    runner = FeatureRunner(backbone, device=device)
    return collect_rows(runner, samples, spec, upsampling, batch=batch, watch=watch)
