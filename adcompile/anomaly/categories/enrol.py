"""Making a category: from images through the bundle's own engine, a fitted model, or a bank file."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from adcompile.anomaly import padim, patchcore
from adcompile.anomaly.categories.agree import check_fitted, check_trained
from adcompile.anomaly.categories.host_code import host_files
from adcompile.anomaly.categories.site import Engine, Site, find_site
from adcompile.anomaly.config import (
    FitConfig,
    PadimConfig,
    PatchcoreConfig,
    make_config,
)
from adcompile.anomaly.detector import run_samples
from adcompile.anomaly.fitting import threshold_options
from adcompile.anomaly.formats.ours import record_of
from adcompile.anomaly.formats.record import Trained, need, refuse_findings
from adcompile.anomaly.images import batches
from adcompile.anomaly.maps import Array
from adcompile.anomaly.model_folder import Fitted
from adcompile.anomaly.parts import Watch
from adcompile.anomaly.presets import Preset, preset
from adcompile.anomaly.renormalise import with_score
from adcompile.anomaly.samples import DataSet
from adcompile.anomaly.scoring import check_weighting
from adcompile.anomaly.statistics import FILE as FILE_OF_STATISTICS
from adcompile.anomaly.statistics import statistics_of, without_statistics
from adcompile.anomaly.threshold import check_score, fit_score
from adcompile.anomaly.whiten import factor_of
from adcompile.contract import Score
from adcompile.errors import InputError, UsageError
from adcompile.fileset import FileSet, publish, staging
from adcompile.ir.emit import add_model
from adcompile.runtime.bundle import Bundle
from adcompile.runtime.categories import FILE, FOLDER, Category, check_name, engine_of

ALLOWED = frozenset(
    {
        "coreset_ratio", "coreset_rows", "projection", "covariance", "seed", "batch", "layout",
        "category", "test_ratio", "validation", "threshold", "threshold_value", "sigmas",
        "normalisation", "decision",
    }
)  # fmt: skip
"""Hyper-parameters a category can have of its own; the others belong to the engine."""


@dataclass(frozen=True)
class Learned:
    """What a category brings: arrays for the search, the completed score, where from."""

    arrays: Mapping[str, Array]
    score: Score
    made_from: str
    images: int = 0
    notes: tuple[str, ...] = ()


def config_for(bundle: Bundle, values: Mapping[str, object]) -> FitConfig:
    """The configuration of an enrolment; names that belong to the engine are refused."""
    score = bundle.manifest.contract.score
    if score is None:
        raise UsageError("the bundle is no anomaly detector", where=str(bundle.path))
    odd = sorted(set(values) - ALLOWED)
    if odd:
        raise UsageError(
            f"{', '.join(odd)} cannot differ between categories",
            fix="a category can set: " + ", ".join(sorted(ALLOWED)),
        )
    known: dict[str, object] = {"normalisation": score.normalisation}
    if score.normalisation == "sigma6":
        known["threshold"] = "good_only"  # the only one it is defined with
    return make_config(score.method, known | dict(values))


def from_images(
    bundle: Bundle, data: DataSet, config: FitConfig, watch: Watch | None = None
) -> Learned:
    """Bank or statistics and threshold from normal images, through the bundle's own parts."""
    site = find_site(bundle)
    engine = Engine(bundle, site)
    own = bundle.manifest.contract
    assert own.score is not None
    chosen = _preset(own.score)
    arrays = _learn(engine, data, config, chosen, watch)
    rows = len(arrays["bank"]) if "bank" in arrays else 0
    if rows:
        check_weighting(own.score, rows)
    outcome = run_samples(
        engine.head(site.replaced(arrays)),
        data.validation,
        engine.preprocess,
        batch=config.batch,
        watch=None if watch is None else lambda done, total: watch("validation", done, total),
    )
    evidence = outcome.evidence()
    plain = own.score.model_copy(update={"normalisation": "none", "threshold": None})
    score = fit_score(plain, evidence, threshold_options(config, chosen, evidence))
    count = len({sample.path for sample in (*data.train, *data.validation)})
    return Learned(
        arrays, score, "1 image" if count == 1 else f"{count} images", count, data.notes
    )


def _preset(score: Score) -> Preset:
    """The habits behind a score: its preset's, or the method's default for a custom formula."""
    known = "" if score.preset == "custom" else score.preset
    return preset(score.method, known, side=None)


def _learn(
    engine: Engine, data: DataSet, config: FitConfig, chosen: Preset, watch: Watch | None
) -> dict[str, Array]:
    if isinstance(config, PatchcoreConfig):
        rows = _rows(engine, data, config, watch)
        return {"bank": patchcore.build_bank(rows, config, chosen, watch)}
    assert isinstance(config, PadimConfig)
    if len(data.train) < 2:
        raise InputError("PaDiM needs at least two training images")
    channels = engine.site.constant("mean").shape[0]
    gaussian = padim.fit_gaussian(
        lambda images: [np.concatenate(engine.queries(images))],
        data.train,
        engine.preprocess,
        np.arange(channels, dtype=np.int64),
        config.covariance or chosen.covariance,
        batch=config.batch,
        watch=watch,
    )
    return {role: cast(Array, getattr(gaussian, role)) for role in engine.site.constants}


def _rows(engine: Engine, data: DataSet, config: FitConfig, watch: Watch | None) -> Array:
    """What the search is asked for on every training image, one after the other."""
    found: list[Array] = []
    for images in batches(data.train, engine.preprocess, engine.batch or config.batch):
        found += engine.queries(images)
        if watch is not None:
            done = min(len(found) * (engine.batch or config.batch), len(data.train))
            watch("features", done, len(data.train))
    rows = np.concatenate(found)
    if not np.isfinite(rows).all():
        raise InputError("the engine gives features that are not finite", where=data.category)
    return rows


def from_fitted(bundle: Bundle, fitted: Fitted, where: str) -> Learned:
    """Bank and threshold of a model fitted with the same backbone and formula."""
    site = find_site(bundle)
    check_fitted(Engine(bundle, site), fitted, where)
    score = fitted.contract.score
    assert score is not None
    own = statistics_of(fitted.model)
    if own is not None and set(own.arrays) == set(site.constants):
        arrays = own.arrays  # to the last digit
    else:
        arrays = _arrays_of(site, record_of(fitted))
    return Learned(arrays, score, "fitted model", notes=_float_note(bundle))


def _arrays_of(site: Site, trained: Trained) -> Mapping[str, Array]:
    """What the search needs of a record. InputError when an inverse covariance has no factor."""
    found: dict[str, Array] = {}
    for role in site.constants:
        if role == "factor":
            assert trained.inverse is not None
            found[role] = factor_of(trained.inverse)
        else:
            found[role] = cast(Array, getattr(trained, role))
    return found


def from_file(bundle: Bundle, trained: Trained, source: Path) -> Learned:
    """Bank and threshold of a trained-model file of any format that holds both."""
    site = find_site(bundle)
    own = bundle.manifest.contract.score
    assert own is not None
    refuse_findings(trained, "the file contradicts itself", str(source))
    check_trained(Engine(bundle, site), trained, source)
    wanted = ("threshold",) if own.normalisation == "none" else ("threshold", "minimum", "maximum")
    need(trained, wanted, "a category")
    numbers = {
        "threshold": trained.threshold,
        "pixel_threshold": trained.pixel_threshold,
        "minimum": trained.minimum,
        "maximum": trained.maximum,
        "mean": trained.log_mean,
        "std": trained.log_std,
    }
    score = own.model_copy(update=numbers)
    check_score(score)
    arrays = _arrays_of(site, trained)
    note = f"{source.name} does not prove which network its features come from"
    return Learned(arrays, score, trained.source, notes=(note, *_float_note(bundle)))


def _float_note(bundle: Bundle) -> tuple[str, ...]:
    """A bank from the float network beside a coarser engine: its scores are shifted."""
    coarse = sorted(
        {p.precision for p in bundle.manifest.parts if p.placement == "device"} - {"fp32"}
    )
    if not coarse:
        return ()
    return (
        f"the engine runs in {', '.join(coarse)}, the bank comes from another run of the network: "
        "scores shift; --data enrols through the engine itself",
    )


def add_category(
    bundle: Bundle, name: str, learned: Learned, *, replace: bool = False
) -> Category:
    """Write the category's folder into the bundle, whole or not at all."""
    check_name(name)
    target = bundle.path / FOLDER / name
    if target.exists() and not replace:
        raise UsageError(
            f"category {name!r} exists", where=str(bundle.path), fix="--force, or another name"
        )
    site = find_site(bundle)
    score = learned.score
    if site.kind == "patchcore":
        check_weighting(score, len(learned.arrays["bank"]))
    model = with_score(site.replaced(learned.arrays), bundle.manifest.contract, score)
    files = FileSet()
    part_file = f"{site.part.name}.onnx"
    own = statistics_of(model)
    statistics = "" if own is None else files.add(FILE_OF_STATISTICS, own.file())
    add_model(files, part_file, model if own is None else without_statistics(model, own))
    native = host_files(bundle, site, learned.arrays, files)
    staged = staging(target)
    try:
        records = files.write_into(staged)
        category = Category(
            name=name,
            engine=engine_of(bundle.manifest),
            score=score,
            made_from=learned.made_from,
            rows=_size(site, learned, 0),
            columns=_size(site, learned, 1),
            images=learned.images,
            notes=(*learned.notes, *native.notes),
            parts={site.part.name: part_file},
            banks=native.banks,
            statistics=statistics,
            files=records,
        )
        (staged / FILE).write_text(category.dump(), encoding="utf-8")
        publish(staged, target, replace=replace)
    finally:
        if staged.exists():
            shutil.rmtree(staged)
    bundle.refresh()
    return category


def _size(site: Site, learned: Learned, axis: int) -> int:
    """Rows and columns of a bank; patches and channels of PaDiM's statistics."""
    array = learned.arrays["bank" if site.kind == "patchcore" else "mean"]
    return int(array.shape[axis if site.kind == "patchcore" else 1 - axis])


def remove_category(bundle: Bundle, name: str) -> None:
    """Remove a category; the name need not be readable, only there."""
    target = bundle.path / FOLDER / check_name(name)
    if name not in bundle.categories:
        raise UsageError(
            f"the bundle has no category {name!r}",
            why="it has " + (", ".join(bundle.categories) or "none besides its own"),
        )
    gone = staging(target)
    gone.rmdir()
    target.rename(gone)  # out of sight at once; a reader meets all of it or nothing
    shutil.rmtree(gone)
    bundle.refresh()
