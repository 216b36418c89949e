"""What the float detector says of the judged images, kept in the bundle: ``verify`` holds the deployed
one against it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from adcompile.anomaly.accuracy import (
    MASKED,
    METRICS,
    UNLABELLED,
    Answers,
    Pixels,
    averaged,
    default_budgets,
)
from adcompile.anomaly.images import tensor_of, truth_of
from adcompile.anomaly.maps import Array
from adcompile.anomaly.samples import Sample
from adcompile.anomaly.threshold import is_anomalous, normalise
from adcompile.check.golden import FOLDER
from adcompile.contract import Contract, Preprocess, Score
from adcompile.errors import UsageError
from adcompile.job import Job
from adcompile.lower.search import Budget, parse_budgets
from adcompile.manifest import Accuracy, JudgedImage
from adcompile.runtime.arrays import save_array

MAX_BYTES = 32 << 20  # of kept images, over all of them
PLACE = "judged"


@dataclass
class Collected:
    """Collects what a detector says of the judged images, as its outputs would give it: one without a
    raw score is asked for the normalised one.

    ``raw_map`` is False when the map that the contract names is normalised. ``kept`` are the positions
    of the images whose pixels count, None for all.
    """

    contract: Contract
    raw_map: bool
    kept: frozenset[int] | None = None
    pixels: Pixels = field(default_factory=Pixels)
    scores: list[float] = field(default_factory=list[float])
    maps: list[Array] = field(default_factory=list[Array])

    @property
    def score(self) -> Score:
        """The detector's formula and threshold."""
        assert self.contract.score is not None
        return self.contract.score

    def see(self, sample: Sample, raw: float, heat: Array) -> None:
        """Take one image's raw score and raw map [H, W]."""
        found = heat if self.raw_map else normalise(heat, self.score, pixel=True)
        if self.kept is None or len(self.scores) in self.kept:
            spec = next(iter(self.contract.inputs.values()))
            self.pixels.add(found, sample.label, truth_of(sample, spec))
        self.scores.append(raw)
        self.maps.append(averaged(found))

    def answers(self) -> Answers:
        """All of them, in the order they were seen. To be called once."""
        raw = np.asarray(self.scores, dtype=np.float32)
        named = "raw_score" in self.contract.roles.values()
        scores = raw if named else normalise(raw, self.score)
        anomalous = is_anomalous(raw, self.score)
        return Answers(scores, anomalous, np.stack(self.maps), self.pixels.metrics())


def asks_accuracy(job: Job) -> tuple[Budget, ...]:
    """The bounds of ``--budget`` when they are on an anomaly detector's accuracy, else none.

    UsageError when they are mixed with others, or cannot be measured.
    """
    if job.options.budget is None:
        return ()
    budgets = parse_budgets(job.options.budget)
    ours = [b for b in budgets if b.metric in METRICS]
    if not ours:
        return ()
    if len(ours) < len(budgets):
        other = next(b for b in budgets if b.metric not in METRICS)
        raise UsageError(
            f"{other.metric} cannot be bounded together with {ours[0].metric}",
            fix=f"known beside it: {', '.join(sorted(METRICS))}",
        )
    if job.options.data is None and job.options.val is None:
        raise UsageError(
            f"the budget {ours[0]} needs images",
            why="it holds an anomaly detector against its float model",
            fix="give --val DIR (good and bad images), better with --data GOOD_IMAGES",
        )
    if job.options.verify == "none":
        raise UsageError(f"the budget {ours[0]} is checked by verify", fix="no --verify none")
    return budgets


def kept_of(job: Job, samples: Sequence[Sample]) -> list[int]:
    """Positions of those of *samples* that go into the bundle: not all when they are many or large.

    The budget is searched for, checked and verified on these, so UsageError when its metrics cannot
    be measured on them.
    """
    spec = next(iter(job.contract.inputs.values()))
    tensor = tensor_of(samples[0], spec).nbytes
    kept: list[int] = []
    spent = 0
    for number in spread([s.label for s in samples], job.options.eval_samples):
        spent += min(tensor, _file_bytes(samples[number]) or tensor)
        if kept and spent > MAX_BYTES:
            break
        kept.append(number)
    _check_measurable(asks_accuracy(job), [samples[number] for number in kept], len(samples))
    return kept


def keep_judged(
    job: Job, answers: Answers, samples: Sequence[Sample], kept: Sequence[int]
) -> None:
    """Put the *kept* ones of *samples* and float's *answers* (to all; its ``pixels`` are those of
    the kept ones) beside the golden data."""
    if not job.golden:
        return
    spec = next(iter(job.contract.inputs.values()))
    folder = job.work / FOLDER / PLACE
    folder.mkdir()
    images: list[JudgedImage] = []
    for number in kept:
        stem, sample = folder / f"{number:03d}", samples[number]
        path, mask = keep_image(stem, sample, spec), keep_mask(stem, sample, spec)
        images.append(
            JudgedImage(
                file=f"{FOLDER}/{PLACE}/{path.name}",
                label=sample.label,
                score=float(answers.scores[number]),
                anomalous=bool(answers.anomalous[number]),
                mask="" if mask is None else f"{FOLDER}/{PLACE}/{mask.name}",
            )
        )
    if len(kept) < len(samples):
        job.report.note(
            f"verify judges {len(kept)} of {len(samples)} images (--eval-samples, and at most "
            f"{MAX_BYTES >> 20} MiB)"
        )
    save_array(folder / "maps.npy", answers.maps[list(kept)])
    budgets = asks_accuracy(job) or default_budgets([samples[number].label for number in kept])
    job.accuracy = Accuracy(
        budgets=tuple(map(str, budgets)),
        images=tuple(images),
        maps=f"{FOLDER}/{PLACE}/maps.npy",
        pixels=dict(answers.pixels),
    )


def spread(labels: Sequence[int], most: int) -> list[int]:
    """Positions of at most *most* images, both labels in turn while there are both: any beginning of
    the list is balanced."""
    groups = [[i for i, label in enumerate(labels) if label == wanted] for wanted in (1, 0)]
    longest = max(len(group) for group in groups)
    turns = [group[i] for i in range(longest) for group in groups if i < len(group)]
    return turns[:most]


def _file_bytes(sample: Sample) -> int:
    return 0 if sample.pixels is not None else sample.path.stat().st_size


def keep_image(stem: Path, sample: Sample, spec: Preprocess) -> Path:
    """The sample's file, or its input tensor when that is smaller or there is no file."""
    tensor = tensor_of(sample, spec)
    if sample.pixels is None and _file_bytes(sample) <= tensor.nbytes:
        path = stem.with_suffix(sample.path.suffix.lower())
        shutil.copyfile(sample.path, path)
        return path
    path = stem.with_suffix(".npy")
    save_array(path, tensor)
    return path


def keep_mask(stem: Path, sample: Sample, spec: Preprocess) -> Path | None:
    """The sample's mask at the size of the input, as a picture; None without one."""
    mask = truth_of(sample, spec)
    if mask is None:
        return None
    path = stem.with_name(f"{stem.name}-mask.png")
    Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(path)
    return path


def _check_measurable(budgets: Sequence[Budget], samples: Sequence[Sample], given: int) -> None:
    """Metrics of labels need good and bad images, those of pixels a mask for every bad one. *samples*
    were kept of as many as were *given*."""
    bad = [sample for sample in samples if sample.label]
    bare = [sample for sample in bad if not sample.has_mask()]
    for budget in budgets:
        if budget.metric in UNLABELLED:
            continue
        if not 0 < len(bad) < len(samples):
            raise UsageError(
                f"the budget {budget} needs good and bad images",
                why=f"{len(samples)} of {given} images are judged, {len(bad)} of them bad",
                fix="give --val DIR with both"
                + (f", and --eval-samples above {len(samples)}" if len(samples) < given else ""),
            )
        if budget.metric in MASKED and bare:
            raise UsageError(
                f"the budget {budget} needs a mask for every bad image",
                where=str(bare[0].path),
                why=f"{len(bare)} of {len(bad)} bad images have none",
                fix="give --val DIR with masks (ground_truth/ beside test/), or bound auroc_loss",
            )
