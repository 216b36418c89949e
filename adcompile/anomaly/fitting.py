"""Fit, refit and recalibrate: from a data set to a fitted model, for all four methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from adcompile.anomaly import padim, patchcore
from adcompile.anomaly.adapt import fit_whitening
from adcompile.anomaly.backbone import Backbone, FeatureRunner, load_backbone
from adcompile.anomaly.config import (
    BackboneConfig,
    FitConfig,
    PadimConfig,
    PatchcoreConfig,
    TrainedConfig,
    make_config,
)
from adcompile.anomaly.detector import Outcome, open_detector, run_samples
from adcompile.anomaly.filters import filter_network
from adcompile.anomaly.metrics import image_metrics
from adcompile.anomaly.model_folder import Arrays, Fitted, Numbers
from adcompile.anomaly.parts import Parts, Session, Watch
from adcompile.anomaly.presets import Preset, preset
from adcompile.anomaly.renormalise import with_score
from adcompile.anomaly.samples import DataSet, Sample
from adcompile.anomaly.threshold import Evidence, ThresholdOptions, fit_score, raw_threshold
from adcompile.anomaly.tiling import tile_backbone
from adcompile.contract import CONTRACT_KEY, Contract, Preprocess, Score, parse_contract
from adcompile.errors import UsageError


def fit(
    config: FitConfig,
    data: DataSet,
    *,
    backbone: Backbone | None = None,
    start: Arrays | None = None,
    checkpoint: Path | None = None,
    watch: Watch | None = None,
) -> Fitted:
    """Train a detector, choose its threshold on the validation images, measure it on the rest.

    *backbone* overrides ``config.backbone``; *start* are weights that training goes on from
    (EfficientAD, VAE), *checkpoint* an ``.npz`` that holds the best ones while it runs. The result
    depends on configuration, data and seed only, and, if trained, on the device that was used.
    """
    chosen = preset(config.method, config.preset, side=config.image_size or None)
    session = Session(start or {}, checkpoint, watch)
    parts = _train(config, data, chosen, backbone, session)
    plain = parts.score.model_copy(update={"normalisation": "none", "threshold": None})
    outcome = _run(parts.build(plain), data.validation, parts.spec, config, "validation", watch)
    evidence = outcome.evidence()
    options = threshold_options(config, chosen, evidence)
    score = fit_score(plain, evidence, options)
    model = parts.build(score)
    found: dict[str, Mapping[str, Numbers]] = {"validation": measured(outcome, score)}
    if data.test:
        tested = _run(model, data.test, parts.spec, config, "test", watch)
        found["test"] = measured(tested, score)
    return Fitted(
        config=config.model_copy(update={"bank": ""})
        if isinstance(config, PatchcoreConfig)
        else config,
        contract=parse_contract(model.metadata_props[CONTRACT_KEY]),
        model=model,
        evidence=evidence,
        metrics=found,
        backbone=parts.backbone,
        bank=parts.bank,
        statistics=parts.statistics or {},
        weights=parts.weights or {},
        notes=(*data.notes, *parts.notes),
        device=parts.device,
    )


def _run(
    model: ir.Model,
    samples: tuple[Sample, ...],
    spec: Preprocess,
    config: FitConfig,
    what: str,
    watch: Watch | None,
) -> Outcome:
    return run_samples(
        open_detector(model),
        samples,
        spec,
        batch=config.batch,
        watch=None if watch is None else lambda done, total: watch(what, done, total),
    )


def measured(outcome: Outcome, score: Score) -> dict[str, Numbers]:
    """Image and pixel metrics at the contract's threshold, as plain data; NaN becomes None."""
    table: dict[str, Numbers] = {}
    limit = raw_threshold(score)
    table["image"] = _plain(
        asdict(image_metrics(outcome.scores, outcome.labels, limit, score.compare))
    )
    if outcome.pixel is not None:
        table["pixel"] = _plain(asdict(outcome.pixel))
    return table


def _plain(values: Mapping[str, float | int]) -> dict[str, float | int | None]:
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in values.items()
    }


def threshold_options(config: FitConfig, chosen: Preset, evidence: Evidence) -> ThresholdOptions:
    """The preset's habits with the configuration's wishes; "auto" looks at the labels."""
    base = chosen.threshold
    mode = config.threshold
    if mode == "auto":
        mode = "best_f1" if 0 < sum(evidence.labels) < len(evidence.labels) else "good_only"
    normalisation = (
        base.normalisation if config.normalisation == "preset" else config.normalisation
    )
    return replace(
        base,
        mode=mode,
        value=config.threshold_value,
        sigmas=config.sigmas,
        normalisation=normalisation,
        decision=config.decision,
    )


def _train(
    config: FitConfig,
    data: DataSet,
    chosen: Preset,
    backbone: Backbone | None,
    session: Session,
) -> Parts:
    if isinstance(config, BackboneConfig):
        parts = _train_head(config, data, chosen, backbone, session.watch)
        return replace(parts, device="cpu" if config.device == "auto" else config.device)
    if isinstance(config, TrainedConfig):
        from adcompile.anomaly.train_networks import train

        return train(config, data, chosen, session)
    raise UsageError(f"nothing trains {config.method!r}")


def _train_head(
    config: BackboneConfig,
    data: DataSet,
    chosen: Preset,
    backbone: Backbone | None,
    watch: Watch | None,
) -> Parts:
    """The head on a feature network that is not trained here."""
    if isinstance(config, PatchcoreConfig):
        return _train_patchcore(config, data, chosen, backbone, watch)
    if isinstance(config, PadimConfig):
        return _train_padim(config, data, chosen, backbone, watch)
    raise UsageError(f"nothing trains {config.method!r}")


def resolve_backbone(config: BackboneConfig, side: int) -> Backbone:
    """The feature network a configuration names: ONNX file, built-in filters, or a torch network."""
    layers = list(config.layers)
    if config.backbone.endswith(".onnx"):
        return load_backbone(Path(config.backbone), layers, side)
    if config.backbone == "filters":
        return load_backbone(filter_network(side), layers, side)
    from adcompile.anomaly.torch_backbones import export_backbone

    return load_backbone(
        export_backbone(config.backbone, layers, config.weights, side, config.seed)
    )


def _side(spec: Preprocess) -> int:
    if spec.size[0] != spec.size[1]:
        raise UsageError("presets need square images", why=f"{spec.size}")
    return spec.size[0]


def _fitting_spec(network: Backbone, config: FitConfig, chosen: Preset) -> Preprocess:
    """The preset's pre-processing at the network's own size."""
    if network.size == chosen.preprocess.size:
        return chosen.preprocess
    if network.size[0] != network.size[1]:
        return chosen.preprocess.model_copy(
            update={"size": network.size, "crop": None, "resize_to": None}
        )
    return preset(config.method, config.preset, side=network.size[0]).preprocess


def _three_quarters(tile: Backbone) -> int:
    """Three quarters of a tile in whole cells of its coarsest feature map."""
    cell = max(tile.size[0] // grid[0] for grid in tile.grids)
    return max(cell, tile.size[0] * 3 // 4 // cell * cell)


def _network(
    config: BackboneConfig, chosen: Preset, backbone: Backbone | None
) -> tuple[Backbone, Preprocess]:
    network = backbone
    if network is None and config.tile:
        tiles = resolve_backbone(config, config.tile)
        network = tile_backbone(
            tiles, _side(chosen.preprocess), config.tile_stride or _three_quarters(tiles)
        )
    elif network is None:
        wanted = 0 if config.backbone.endswith(".onnx") and not config.image_size else 1
        side = _side(chosen.preprocess) if wanted else 0
        network = resolve_backbone(config, side)
    return network, _fitting_spec(network, config, chosen)


def _train_patchcore(
    config: PatchcoreConfig,
    data: DataSet,
    chosen: Preset,
    backbone: Backbone | None,
    watch: Watch | None,
) -> Parts:
    network, spec = _network(config, chosen, backbone)
    upsampling = chosen.deep_upsampling
    if config.bank:
        return _given_bank(config, chosen, network, spec)
    rows = patchcore.features_of(
        network,
        data.train,
        spec,
        upsampling,
        batch=config.batch,
        watch=watch,
        device=config.device,
    )
    whitening = None
    shrink = (
        (0.01 if config.backbone == "filters" else 0.0) if config.whiten is None else config.whiten
    )
    if shrink or config.columns:
        whitening = fit_whitening(rows, shrink or 0.01, config.columns)
        rows = whitening.apply(rows)
    bank = patchcore.build_bank(rows, config, chosen, watch)
    score = patchcore.score_of(config, chosen, len(bank))

    def build(score: Score) -> ir.Model:
        return patchcore.build_model(network, bank, score, spec, upsampling, whitening)

    return Parts(score, build, spec, backbone=network.model, bank=bank)


def _given_bank(
    config: PatchcoreConfig, chosen: Preset, network: Backbone, spec: Preprocess
) -> Parts:
    """A detector around a bank that was made elsewhere. Raises UsageError when it does not fit."""
    from adcompile.anomaly.formats.convert import read_trained

    bank = read_trained(Path(config.bank)).bank
    if bank is None:
        raise UsageError("the file holds no memory bank", where=config.bank)
    if bank.shape[1] != sum(network.channels):
        raise UsageError(
            f"the bank has {bank.shape[1]} columns, the network gives {sum(network.channels)}",
            where=config.bank,
            why=" + ".join(
                f"{n} ({c})" for n, c in zip(_outputs(network), network.channels, strict=True)
            ),
            fix="--backbone and --layers that the bank was made with, in the same order",
        )
    if config.whiten or config.columns:
        raise UsageError("a given bank is used as it is", fix="leave out --whiten and --columns")
    score = patchcore.score_of(config, chosen, len(bank))

    def build(score: Score) -> ir.Model:
        return patchcore.build_model(network, bank, score, spec, chosen.deep_upsampling)

    note = f"the memory bank is that of {Path(config.bank).name}: {len(bank)} rows"
    return Parts(score, build, spec, backbone=network.model, bank=bank, notes=(note,))


def _outputs(network: Backbone) -> list[str]:
    return [value.name or "" for value in network.model.graph.outputs]


def _train_padim(
    config: PadimConfig,
    data: DataSet,
    chosen: Preset,
    backbone: Backbone | None,
    watch: Watch | None,
) -> Parts:
    network, spec = _network(config, chosen, backbone)
    index = padim.channel_index(sum(network.channels), config.features, config.seed)
    identity, pooled = padim.regularisers(config, chosen)
    gaussian = padim.fit_gaussian(
        FeatureRunner(network, device=config.device),
        data.train,
        spec,
        index,
        identity,
        pooled_images=pooled,
        batch=config.batch,
        watch=watch,
    )

    def build(score: Score) -> ir.Model:
        return padim.build_model(network, gaussian, score, spec)

    arrays: Arrays = {"mu": gaussian.mean, "cov_inv": gaussian.inverse, "index": gaussian.index}
    return Parts(padim.score_of(config, chosen), build, spec, network.model, statistics=arrays)


def recalibrate(fitted: Fitted, changes: Mapping[str, object]) -> Fitted:
    """The same model with another threshold, normalisation or decision level, from its evidence.

    *changes* are values of the configuration: ``threshold``, ``threshold_value``, ``sigmas``,
    ``normalisation``, ``decision``. No image is read.
    """
    allowed = {"threshold", "threshold_value", "sigmas", "normalisation", "decision"}
    odd = sorted(set(changes) - allowed)
    if odd:
        raise UsageError(
            f"{', '.join(odd)} cannot change without refitting", fix=", ".join(sorted(allowed))
        )
    values: dict[str, object] = fitted.config.model_dump() | dict(changes)
    config = make_config(fitted.config.method, values)
    chosen = preset(config.method, config.preset, side=config.image_size or None)
    assert fitted.contract.score is not None
    options = threshold_options(config, chosen, fitted.evidence)
    score = fit_score(fitted.contract.score, fitted.evidence, options)
    model = with_score(fitted.model, fitted.contract, score)
    contract = Contract.model_validate(
        fitted.contract.model_dump() | {"score": score.model_dump()}
    )
    return replace(fitted, config=config, contract=contract, model=model)
