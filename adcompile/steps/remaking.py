"""A head's constants, threshold and range measured again on some form of the device parts.

Nothing of the job is changed here: a build does it once with the parts as they were lowered, an accuracy
search once per try.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from adcompile.anomaly.chain import raw_names
from adcompile.anomaly.config import make_config
from adcompile.anomaly.detector import Outcome, See
from adcompile.anomaly.fitting import threshold_options
from adcompile.anomaly.model_folder import read_config
from adcompile.anomaly.presets import preset
from adcompile.anomaly.remeasure.images import Images
from adcompile.anomaly.remeasure.kind import Measurement, Recipe, Work, part_called
from adcompile.anomaly.remeasure.kinds import Head, find_head
from adcompile.anomaly.remeasure.score import check_reachable, settled, with_new_score
from adcompile.anomaly.threshold import ThresholdOptions, fit_score
from adcompile.contract import Preprocess, Score
from adcompile.errors import UsageError
from adcompile.interfaces import Part
from adcompile.job import Job
from adcompile.steps.detector_runs import Runs
from adcompile.steps.inputs import detector_images

PRESET = "anomalib"
"""Whose habits are assumed for a model that no fit of ours made."""


@dataclass(frozen=True)
class Task:
    """What is measured again, on which images, and how it was made the first time."""

    head: Head
    score: Score
    spec: Preprocess
    images: Images
    recipe: Recipe


@dataclass(frozen=True)
class Remade:
    """The parts with new constants, the new score contract, and what the detector then says."""

    found: Measurement
    parts: list[Part]
    score: Score
    own: Outcome


def task_of(job: Job) -> Task:
    """The task of ``--data`` and ``--val``. UsageError when the model has nothing to measure again."""
    score = _score(job)
    raw = raw_names(job.parts, job.contract)
    head = find_head(job.parts, raw, train=job.options.data is not None)
    check_reachable(job.parts, score)
    spec = next(iter(job.contract.inputs.values()), None)
    if spec is None:
        raise UsageError("the contract has no pre-processing", fix="--preprocess or --contract")
    return Task(head, score, spec, detector_images(job), _recipe(job, head, score))


def remake(task: Task, runs: Runs, see: Callable[[Score], See] | None = None) -> Remade:
    """Constants from the features of *runs*, then threshold and range from its scores.

    *see* is asked, with the new score contract, for what is to get every judged image.
    """
    head, images = task.head, task.images
    found = _measure(task, runs)
    _check_k(task.score, found)
    parts = _changed(runs.parts, lambda part: part.name == head.site.part, found.change)
    held = runs.having(parts).outcome(images.validation)
    fresh = fit_score(task.score, held.evidence(), _options(task.recipe, held, task.score))
    fresh = settled(fresh, held.scores)
    parts = _changed(
        parts,
        lambda part: part.placement == "host",
        lambda part: with_new_score(part, head.raw, task.score, fresh),
    )
    if see is None and not images.others:
        return Remade(found, parts, fresh, held)
    own = runs.having(parts).outcome(images.judged, None if see is None else see(fresh))
    return Remade(found, parts, fresh, own)


def _measure(task: Task, runs: Runs) -> Measurement:
    head, images = task.head, task.images
    part = part_called(runs.parts, head.site.part)
    with runs.chain() as chain:
        work = Work(chain, part, images.train, images.held, runs.spec, task.recipe, runs.watch)
        return head.kind.measure(head.site, work)


def _changed(
    parts: Sequence[Part], which: Callable[[Part], bool], change: Callable[[Part], Part]
) -> list[Part]:
    return [change(part) if which(part) else part for part in parts]


def _score(job: Job) -> Score:
    if job.contract.score is None:
        raise UsageError(
            "--data and --val need an anomaly detector",
            where=job.source.name,
            why="the contract has no score and no head was found in the graph",
            fix="to calibrate any other model: --calib. To make a detector of a feature network: "
            "adcompile fit patchcore --backbone NET.onnx --data DIR -o model",
        )
    return job.contract.score


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


def _check_k(score: Score, found: Measurement) -> None:
    if found.bank is None or score.weighting != "own_neighbours":
        return
    if score.k > len(found.bank):
        raise UsageError(
            "the rebuilt bank has fewer rows than k",
            why=f"k {score.k}, {len(found.bank)} rows",
            fix="more images in --data",
        )
