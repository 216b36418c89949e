"""``--data``: bank and threshold from the lowered network, before anything is emitted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from adcompile.anomaly import rebuild
from adcompile.anomaly.chain import Chain, Head, constants_of, find_head, with_constants
from adcompile.anomaly.config import PadimConfig, PatchcoreConfig
from adcompile.anomaly.detector import Outcome, run_samples
from adcompile.anomaly.fitting import threshold_options
from adcompile.anomaly.formats import r0
from adcompile.anomaly.formats.record import Trained
from adcompile.anomaly.layouts import detect
from adcompile.anomaly.maps import Array
from adcompile.anomaly.model_folder import read_config
from adcompile.anomaly.presets import preset
from adcompile.anomaly.rebuild import Recipe
from adcompile.anomaly.samples import DataSet, Sample, SplitOptions
from adcompile.anomaly.sources import read_data
from adcompile.anomaly.threshold import ThresholdOptions, fit_score
from adcompile.check.golden import record_run
from adcompile.contract import Preprocess, Score
from adcompile.errors import InputError, UsageError
from adcompile.interfaces import Part
from adcompile.job import Job
from adcompile.steps.inputs import FLOAT_PRECISIONS, fixed_specs

R0_COLUMNS = 384
NAMES = ("float", "quantized, float bank", "quantized, own bank")


def rebuild_bank(job: Job) -> None:
    """With ``--data``: features, bank, threshold and range from the parts as they were lowered.

    Golden data is recorded again, from the lowered parts: the float model has another bank now.
    Without ``--data``, a quantized network beside a float bank is said.
    """
    coarse = [p for p in job.lowered.values() if p.precision not in FLOAT_PRECISIONS]
    if job.options.data is None:
        _say_float_bank(job, coarse)
        return
    assert job.source is not None
    score = job.contract.score
    if score is None:
        raise UsageError(
            "--data needs an anomaly detector",
            where=job.source.name,
            why="the contract has no score and no head was found in the graph",
        )
    head = find_head(job.parts, job.contract)
    if job.options.bank_format == "r0":
        _check_r0(score, head)
    spec = next(iter(job.contract.inputs.values()), None)
    if spec is None:
        raise UsageError("the contract has no pre-processing", fix="--preprocess or --contract")
    data = _data(job)
    old = constants_of(job.parts, head)
    recipe = _recipe(job, head, score, len(old[0]))
    judged = data.validation
    with _chain(job, job.parts, head) as chain:
        base = _outcome(job, chain, judged, spec, NAMES[0])
    with _chain(job, _lowered(job), head) as chain:
        plain = _outcome(job, chain, judged, spec, NAMES[1])
        new = rebuild.new_constants(
            chain, head, old, data.train, spec, recipe, lambda w, d, t: _watch(job, w, d, t)
        )
    _check_k(score, new, head)
    arrays = dict(zip(head.constants, new, strict=True))
    _replace_part(job, head, lambda part: with_constants(part, arrays))
    with _chain(job, _lowered(job), head) as chain:
        own = _outcome(job, chain, judged, spec, NAMES[2])
    fresh = fit_score(score, own.evidence(), _options(recipe, own, score))
    fresh = rebuild.settled(fresh, own.scores)
    _replace_part(job, head, lambda part: rebuild.with_new_score(part, fresh))
    job.contract = job.contract.model_copy(update={"score": fresh})
    _report(job, head, judged, (base, plain, own), (score, fresh), (len(old[0]), len(new[0])))
    _record_again(job)
    if job.options.bank_format == "r0":
        if new[0].shape[1] != R0_COLUMNS:
            job.report.note(
                f"the .bin has {new[0].shape[1]} columns; R0's published application is compiled "
                f"for {R0_COLUMNS} (layer2 and layer3 of ResNet18 at 224 pixels)"
            )
        data_bytes = _r0_file(fresh, new[0], head, recipe, len(data.train))
        job.files.add(f"bank/{job.source.name}.bin", data_bytes)


def _lowered(job: Job) -> list[Part]:
    return [job.lowered.get(part.name, part) for part in job.parts]


def _say_float_bank(job: Job, coarse: list[Part]) -> None:
    if job.options.val is not None or job.options.bank_format != "adbank":
        raise UsageError("--val and --bank-format go with --data", fix="--data GOOD_IMAGES")
    score = job.contract.score
    if coarse and score is not None and score.method in {"patchcore", "padim"}:
        job.report.note(
            "lint [float-bank] bank and threshold come from the float network, "
            f"{coarse[0].name} runs in {coarse[0].precision}: rebuild them with --data GOOD_IMAGES"
        )


def _data(job: Job) -> DataSet:
    """Normal images to build from, and images to choose the threshold and to judge on."""
    assert job.options.data is not None
    folder = job.options.data
    plain = (
        folder.is_dir() and detect(folder) == "images"
    )  # normal images only: some are kept back for the threshold
    split = "train" if plain and job.options.val is None else "same"
    data = read_data(folder, SplitOptions(validation=split, seed=job.options.seed))
    if job.options.val is not None:
        judged = read_data(job.options.val, SplitOptions(validation="same"))
        images = judged.test or judged.validation or judged.train
        data = replace(data, validation=images)
    if not data.validation:
        raise InputError("no validation image", where=str(job.options.data), fix="give --val DIR")
    for note in data.notes:
        job.report.note(note)
    if not any(s.label for s in data.validation):
        job.report.note(
            "no anomalous validation image: threshold from normal ones, AUROC and F1 unknown "
            "(--val DIR with good and bad images)"
        )
    return data


def _recipe(job: Job, head: Head, score: Score, rows: int) -> Recipe:
    """The fit's own configuration, or one that makes a bank of the same size."""
    size = next(iter(job.contract.inputs.values())).size[0]
    if job.folder is not None:
        config = read_config(job.folder)
        return Recipe(config, preset(config.method, config.preset, side=config.image_size or None))
    chosen = preset(score.method, "anomalib", side=size)
    if head.kind == "knn":
        return Recipe(PatchcoreConfig(preset="anomalib", coreset_rows=rows), chosen)
    return Recipe(PadimConfig(preset="anomalib", covariance=chosen.covariance), chosen)


def _options(recipe: Recipe, outcome: Outcome, score: Score) -> ThresholdOptions:
    """The fit's habits, with the normalisation that the graph has."""
    found = threshold_options(recipe.config, recipe.chosen, outcome.evidence())
    mode = "good_only" if score.normalisation == "sigma6" else found.mode
    return replace(found, normalisation=score.normalisation, decision=score.decision, mode=mode)


def _chain(job: Job, parts: list[Part], head: Head) -> Chain:
    assert job.source is not None
    return Chain(parts, fixed_specs(job), job.source.outputs, head)


def _outcome(
    job: Job, chain: Chain, samples: tuple[Sample, ...], spec: Preprocess, what: str
) -> Outcome:
    return run_samples(
        chain, samples, spec, batch=4, watch=lambda d, t: _watch(job, f"judge ({what})", d, t)
    )


def _watch(job: Job, what: str, done: int, total: int) -> None:
    job.watch(f"{what} {done} of {total}")


def _replace_part(job: Job, head: Head, change: Callable[[Part], Part]) -> None:
    job.parts = [change(p) if p.name == head.part else p for p in job.parts]


def _check_k(score: Score, new: list[Array], head: Head) -> None:
    if head.kind == "knn" and score.weighting == "own_neighbours" and score.k > len(new[0]):
        raise UsageError(
            "the rebuilt bank has fewer rows than k",
            why=f"k {score.k}, {len(new[0])} rows",
            fix="more images in --data",
        )


def _report(
    job: Job,
    head: Head,
    samples: tuple[Sample, ...],
    outcomes: tuple[Outcome, Outcome, Outcome],
    scores: tuple[Score, Score],
    rows: tuple[int, int],
) -> None:
    contracts = (scores[0], scores[0], scores[1])
    base, plain, own = (
        rebuild.measure(n, o, s) for n, o, s in zip(NAMES, outcomes, contracts, strict=True)
    )
    names = _short_names(samples)
    job.rebuilt = rebuild.Rebuilt(
        kind="bank" if head.kind == "knn" else "statistics",
        rows=rows,
        images=len(samples),
        variants=(base, plain, own),
        before=rebuild.flips_of(base, plain, names, samples),
        after=rebuild.flips_of(base, own, names, samples),
    )
    job.flip_images = {name: sample.path for name, sample in zip(names, samples, strict=True)}
    job.report.note(
        "golden data comes from the lowered network with its rebuilt bank: it proves that the "
        "bundle runs as it was simulated; what quantization costs is in the table above"
    )


def _short_names(samples: tuple[Sample, ...]) -> list[str]:
    """The last two parts of each path (a bundle names no absolute path); numbered when not unique."""
    names: list[str] = []
    for sample in samples:
        name = Path(*sample.path.parts[-2:]).as_posix()
        names.append(name if name not in names else f"{name} ({len(names)})")
    return names


def _record_again(job: Job) -> None:
    """Golden inputs through the lowered parts; replaces what the float model gave."""
    assert job.source is not None
    if not job.golden:
        return
    folder = job.work / "golden"
    shutil.rmtree(folder)
    job.golden = record_run(
        _lowered(job), fixed_specs(job), job.source.outputs, job.inputs, folder
    )


def _check_r0(score: Score, head: Head) -> None:
    """Refuse what R0's application would score otherwise, before any work."""
    if head.kind != "knn":
        raise UsageError("--bank-format r0 is for PatchCore", fix="leave it out")
    fields = {"metric": "l2", "weighting": "own_neighbours", "normalisation": "min_max"}
    wrong = [f"{n} {getattr(score, n)}" for n, v in fields.items() if getattr(score, n) != v]
    if wrong:
        raise UsageError(
            "R0's application scores otherwise",
            why=", ".join(wrong) + "; it uses " + ", ".join(fields.values()),
            fix="fit with --preset r0",
        )


def _r0_file(score: Score, bank: Array, head: Head, recipe: Recipe, images: int) -> bytes:
    """The file that R0's board application reads."""
    config = recipe.config
    assert isinstance(config, PatchcoreConfig)
    ratio = config.coreset_ratio
    if config.coreset_rows:
        ratio = len(bank) / max(images * head.rows_per_image, 1)
    return r0.pack_bin(
        Trained(
            method="patchcore",
            source="adcompile",
            bank=bank,
            threshold=score.threshold,
            minimum=score.minimum,
            maximum=score.maximum,
            neighbours=score.k,
            ratio=min(ratio, 1.0),
        )
    )
