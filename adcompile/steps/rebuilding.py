"""``--data``: the head's constants and threshold from the lowered network, before it is emitted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from adcompile.anomaly import rebuild
from adcompile.anomaly.chain import raw_names
from adcompile.anomaly.config import make_config
from adcompile.anomaly.detector import Outcome
from adcompile.anomaly.fitting import threshold_options
from adcompile.anomaly.model_folder import read_config
from adcompile.anomaly.presets import preset
from adcompile.anomaly.remeasure.images import Images, read_images
from adcompile.anomaly.remeasure.kind import Measurement, Recipe, Work, part_called
from adcompile.anomaly.remeasure.kinds import Head, find_head
from adcompile.anomaly.remeasure.score import check_reachable, settled, with_new_score
from adcompile.anomaly.samples import Sample
from adcompile.anomaly.threshold import ThresholdOptions, fit_score
from adcompile.check.golden import FOLDER, record_run
from adcompile.contract import Score
from adcompile.errors import UsageError
from adcompile.interfaces import Part
from adcompile.job import Job
from adcompile.steps.detector_runs import Runs
from adcompile.steps.inputs import FLOAT_PRECISIONS, fixed_specs
from adcompile.steps.judging import FloatAnswers, asks_accuracy, check_measurable, keep_judged
from adcompile.steps.r0_file import add_r0_file, check_r0

PRESET = "anomalib"
"""Whose habits are assumed for a model that no fit of ours made."""


def rebuild_head(job: Job) -> None:
    """With ``--data``: constants, threshold and range from the parts as they were lowered.

    Golden data is recorded again, from the lowered parts: the float model has other constants now.
    What that one said of the judged images is kept beside it.
    Without ``--data``, a quantized network beside the float one's constants is said.
    """
    if job.options.data is None:
        _say_float_head(job)
        return
    score = _score(job)
    head = find_head(job.parts, raw_names(job.parts, job.contract))
    check_reachable(job.parts, score)
    if job.options.bank_format == "r0":
        check_r0(score, head.kind.what)
    spec = next(iter(job.contract.inputs.values()), None)
    if spec is None:
        raise UsageError("the contract has no pre-processing", fix="--preprocess or --contract")
    images = _images(job, head)
    check_measurable(asks_accuracy(job), [s.label for s in images.judged])
    recipe = _recipe(job, head, score)
    runs = Runs(job, head, spec)
    reference = FloatAnswers(job.contract, head.raw.map in job.contract.roles)
    base = runs.float_outcome(images.judged, reference.see)
    plain = runs.outcome(images.judged)
    found = _measure(runs, images, recipe)
    _check_k(score, found)
    _change_parts(job, [head.site.part], found.change)
    held = runs.outcome(images.validation)
    fresh = fit_score(score, held.evidence(), _options(recipe, held, score))
    fresh = settled(fresh, held.scores)
    hosts = [part.name for part in job.parts if part.placement == "host"]
    _change_parts(job, hosts, lambda part: with_new_score(part, head.raw, score, fresh))
    job.contract = job.contract.model_copy(update={"score": fresh})
    own = held if not images.others else runs.outcome(images.judged)
    _report(job, head, images, found, ((base, score), (plain, score), (own, fresh)))
    _record_again(runs)
    keep_judged(job, reference.answers(), images.judged)
    if job.options.bank_format == "r0":
        assert found.bank is not None
        add_r0_file(job, fresh, found.bank, recipe, len(images.train) * head.site.rows_per_image)


def _score(job: Job) -> Score:
    assert job.source is not None
    if job.contract.score is None:
        raise UsageError(
            "--data needs an anomaly detector",
            where=job.source.name,
            why="the contract has no score and no head was found in the graph",
        )
    return job.contract.score


def _say_float_head(job: Job) -> None:
    if job.options.val is not None or job.options.bank_format != "adbank":
        raise UsageError("--val and --bank-format go with --data", fix="--data GOOD_IMAGES")
    coarse = [p for p in job.lowered.values() if p.precision not in FLOAT_PRECISIONS]
    if not coarse or job.contract.score is None:
        return
    try:
        what = find_head(job.parts, raw_names(job.parts, job.contract)).remade
    except UsageError:
        what = "threshold"
    verb, them = ("come", "them") if " and " in what else ("comes", "it")
    job.report.note(
        f"lint [float-bank] {what} {verb} from the float network, {coarse[0].name} runs in "
        f"{coarse[0].precision}: measure {them} again with --data GOOD_IMAGES [--val DIR]"
    )


def _images(job: Job, head: Head) -> Images:
    """Images as the fit divides them, and what the user should know about them."""
    assert job.options.data is not None
    config = None if job.folder is None else read_config(job.folder)
    found = read_images(job.options.data, job.options.val, config, job.options.seed)
    for note in found.notes:
        job.report.note(note)
    if head.reason:
        job.report.note(f"only {head.remade} can be measured again: {head.reason}")
    if not any(s.label for s in found.validation):
        job.report.note(
            "no anomalous validation image: threshold from normal ones, AUROC and F1 unknown "
            "(--val DIR with good and bad images)"
        )
    if not found.fresh and head.kind.what in {"quantiles", "threshold"}:
        job.report.note(
            f"{head.remade} from normal images of --data: if the networks were trained on them, "
            "new images score higher (--val DIR with images that were kept apart)"
        )
    return found


def _recipe(job: Job, head: Head, score: Score) -> Recipe:
    """The fit's own configuration, or one that makes a head of the same size."""
    if job.folder is not None:
        config = read_config(job.folder)
        return Recipe(config, preset(config.method, config.preset, side=config.image_size or None))
    size = next(iter(job.contract.inputs.values())).size[0]
    name = PRESET if score.method != "vae" else ""
    chosen = preset(score.method, name, side=size)
    values = head.kind.defaults(head.site, job.parts, chosen)
    return Recipe(make_config(score.method, {"preset": chosen.name, **values}), chosen)


def _options(recipe: Recipe, outcome: Outcome, score: Score) -> ThresholdOptions:
    """The fit's habits, with the normalisation that the graph has."""
    found = threshold_options(recipe.config, recipe.chosen, outcome.evidence())
    mode = "good_only" if score.normalisation == "sigma6" else found.mode
    return replace(found, normalisation=score.normalisation, decision=score.decision, mode=mode)


def _measure(runs: Runs, images: Images, recipe: Recipe) -> Measurement:
    job, head = runs.job, runs.head
    part = part_called(job.parts, head.site.part)
    with runs.chain() as chain:
        work = Work(chain, part, images.train, images.held, runs.spec, recipe, runs.watch)
        found = head.kind.measure(head.site, work)
    for note in found.notes:
        job.report.note(note)
    return found


def _change_parts(job: Job, names: list[str], change: Callable[[Part], Part]) -> None:
    job.parts = [change(part) if part.name in names else part for part in job.parts]


def _check_k(score: Score, found: Measurement) -> None:
    if found.bank is None or score.weighting != "own_neighbours":
        return
    if score.k > len(found.bank):
        raise UsageError(
            "the rebuilt bank has fewer rows than k",
            why=f"k {score.k}, {len(found.bank)} rows",
            fix="more images in --data",
        )


def _report(
    job: Job,
    head: Head,
    images: Images,
    found: Measurement,
    results: tuple[tuple[Outcome, Score], tuple[Outcome, Score], tuple[Outcome, Score]],
) -> None:
    """Float, quantized, and quantized with its own constants, side by side."""
    titles = rebuild.names_of(head.kind.what)
    base, plain, own = (
        rebuild.measure(title, outcome, score)
        for title, (outcome, score) in zip(titles, results, strict=True)
    )
    names = _short_names(images.judged)
    job.rebuilt = rebuild.Rebuilt(
        kind=head.kind.what,
        numbers=found.numbers,
        images=len(images.judged),
        others=images.others,
        variants=(base, plain, own),
        before=rebuild.flips_of(base, plain, names, images.judged),
        after=rebuild.flips_of(base, own, names, images.judged),
    )
    job.flip_images = {n: sample.path for n, sample in zip(names, images.judged, strict=True)}


def _short_names(samples: tuple[Sample, ...]) -> list[str]:
    """The last two parts of each path (a bundle names no absolute path); numbered when not unique."""
    names: list[str] = []
    for sample in samples:
        name = Path(*sample.path.parts[-2:]).as_posix()
        names.append(name if name not in names else f"{name} ({len(names)})")
    return names


def _record_again(runs: Runs) -> None:
    """Golden inputs through the lowered parts; replaces what the float model gave."""
    job = runs.job
    assert job.source is not None
    if not job.golden:
        return
    job.report.note(
        f"golden data comes from the lowered network with its own {runs.head.kind.what}: it proves "
        "that the bundle runs as it was simulated; verify also holds it against the float model"
    )
    folder = job.work / FOLDER
    shutil.rmtree(folder)
    job.golden = record_run(runs.lowered, fixed_specs(job), job.source.outputs, job.inputs, folder)
