"""``--data``: the head's constants and threshold from the lowered network, before it is emitted."""

from __future__ import annotations

import shutil
from pathlib import Path

from adcompile.anomaly import rebuild
from adcompile.anomaly.chain import raw_names
from adcompile.anomaly.detector import Outcome
from adcompile.anomaly.remeasure.images import Images
from adcompile.anomaly.remeasure.kind import Measurement
from adcompile.anomaly.remeasure.kinds import Head, find_head
from adcompile.anomaly.samples import Sample
from adcompile.check.golden import FOLDER, record_run
from adcompile.contract import Score
from adcompile.errors import UsageError
from adcompile.job import Job
from adcompile.steps.detector_runs import Runs
from adcompile.steps.inputs import fixed_specs
from adcompile.steps.judging import (
    Collected,
    keep_judged,
    kept_of,
)
from adcompile.steps.r0_file import add_r0_file, check_r0
from adcompile.steps.remaking import Task, remake, task_of
from adcompile.target import FLOAT_PRECISIONS


def rebuild_head(job: Job) -> None:
    """With ``--data``: constants, threshold and range from the parts as they were lowered; with
    ``--val`` alone threshold and range, and those constants that no training images are needed for.

    Golden data is recorded again, from the lowered parts: the float model has other constants now.
    What that one said of the judged images is kept beside it.
    Without either, a quantized network beside the float one's constants is said.
    """
    if job.options.data is None and job.options.bank_format != "adbank":
        raise UsageError("--bank-format goes with --data", fix="--data GOOD_IMAGES")
    if job.options.data is None and job.options.val is None:
        _say_float_head(job)
        return
    task = task_of(job)
    head, images = task.head, task.images
    if job.options.bank_format == "r0":
        check_r0(task.score, head.kind.what)
    _say_images(job, task)
    kept = kept_of(job, images.judged)
    reference = Collected(job.contract, head.raw.map in job.contract.roles, frozenset(kept))
    base = Runs(job, head, task.spec, job.parts).outcome(images.judged, reference.see)
    runs = Runs(job, head, task.spec, job.parts, job.lowered)
    plain = runs.outcome(images.judged)
    remade = remake(task, runs)
    for note in remade.found.notes:
        job.report.note(note)
    job.parts = remade.parts
    job.contract = job.contract.model_copy(update={"score": remade.score})
    results = ((base, task.score), (plain, task.score), (remade.own, remade.score))
    _report(job, head, images, remade.found, results)
    _record_again(runs.having(remade.parts))
    keep_judged(job, reference.answers(), images.judged, kept)
    if job.options.bank_format == "r0":
        assert remade.found.bank is not None
        rows = len(images.train) * head.site.rows_per_image
        add_r0_file(job, remade.score, remade.found.bank, task.recipe, rows)


def _say_float_head(job: Job) -> None:
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


def _say_images(job: Job, task: Task) -> None:
    """What the user should know about the images, and about what is measured on them."""
    head, found = task.head, task.images
    for note in found.notes:
        job.report.note(note)
    if job.options.data is None and job.options.calib is None:
        apart = (
            f"the {len(found.held)} normal images of --val that set the threshold; none is judged"
        )
        same = "normal images of --val that are judged too (--calib or --data keep them apart)"
        job.report.note(f"calibrated on {apart if found.others else same}")
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
    if not job.golden:
        return
    job.report.note(
        f"golden data comes from the lowered network with its own {runs.head.kind.what}: it proves "
        "that the bundle runs as it was simulated; verify also holds it against the float model"
    )
    folder = job.work / FOLDER
    shutil.rmtree(folder)
    job.golden = record_run(runs.actual, fixed_specs(job), job.source.outputs, job.inputs, folder)
