"""What the float detector says of the judged images, kept in the bundle: ``verify`` holds the deployed
one against it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adcompile.anomaly.accuracy import METRICS, Answers, averaged, default_budgets
from adcompile.anomaly.images import tensor_of
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

    ``raw_map`` is False when the map that the contract names is normalised.
    """

    contract: Contract
    raw_map: bool
    scores: list[float] = field(default_factory=list[float])
    maps: list[Array] = field(default_factory=list[Array])

    @property
    def score(self) -> Score:
        """The detector's formula and threshold."""
        assert self.contract.score is not None
        return self.contract.score

    def see(self, sample: Sample, raw: float, heat: Array) -> None:
        """Take one image's raw score and raw map [H, W]."""
        del sample
        self.scores.append(raw)
        found = heat if self.raw_map else normalise(heat, self.score, pixel=True)
        self.maps.append(averaged(found))

    def answers(self) -> Answers:
        """All of them, in the order they were seen."""
        raw = np.asarray(self.scores, dtype=np.float32)
        named = "raw_score" in self.contract.roles.values()
        scores = raw if named else normalise(raw, self.score)
        return Answers(scores, is_anomalous(raw, self.score), np.stack(self.maps))


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


def keep_judged(job: Job, answers: Answers, samples: Sequence[Sample]) -> None:
    """Put *samples* (not all when they are many or large) and float's *answers* beside the golden
    data."""
    if not job.golden:
        return
    spec = next(iter(job.contract.inputs.values()))
    folder = job.work / FOLDER / PLACE
    folder.mkdir()
    labels = [sample.label for sample in samples]
    images: list[JudgedImage] = []
    kept: list[int] = []
    spent = 0
    for number in spread(labels, job.options.eval_samples):
        path = keep_image(folder / f"{number:03d}", samples[number], spec)
        spent += path.stat().st_size
        if images and spent > MAX_BYTES:
            path.unlink()
            break
        kept.append(number)
        images.append(
            JudgedImage(
                file=f"{FOLDER}/{PLACE}/{path.name}",
                label=labels[number],
                score=float(answers.scores[number]),
                anomalous=bool(answers.anomalous[number]),
            )
        )
    if len(kept) < len(samples):
        job.report.note(
            f"verify judges {len(kept)} of {len(samples)} images (--eval-samples, and at most "
            f"{MAX_BYTES >> 20} MiB)"
        )
    save_array(folder / "maps.npy", answers.maps[kept])
    own = [labels[number] for number in kept]
    budgets = asks_accuracy(job) or default_budgets(own)
    check_measurable(budgets, own)
    job.accuracy = Accuracy(
        budgets=tuple(map(str, budgets)),
        images=tuple(images),
        maps=f"{FOLDER}/{PLACE}/maps.npy",
    )


def spread(labels: Sequence[int], most: int) -> list[int]:
    """Positions of at most *most* images, both labels in turn while there are both: any beginning of
    the list is balanced."""
    groups = [[i for i, label in enumerate(labels) if label == wanted] for wanted in (1, 0)]
    longest = max(len(group) for group in groups)
    turns = [group[i] for i in range(longest) for group in groups if i < len(group)]
    return turns[:most]


def keep_image(stem: Path, sample: Sample, spec: Preprocess) -> Path:
    """The sample's file, or its input tensor when that is smaller or there is no file."""
    tensor = tensor_of(sample, spec)
    if sample.pixels is None and sample.path.stat().st_size <= tensor.nbytes:
        path = stem.with_suffix(sample.path.suffix.lower())
        shutil.copyfile(sample.path, path)
        return path
    path = stem.with_suffix(".npy")
    save_array(path, tensor)
    return path


def check_measurable(budgets: Sequence[Budget], labels: Sequence[int]) -> None:
    """Metrics of labels need good and bad images."""
    if 0 < sum(labels) < len(labels):
        return
    for budget in budgets:
        if budget.metric not in {"flips", "rank_correlation", "map_agreement"}:
            raise UsageError(
                f"the budget {budget} needs good and bad images",
                why=f"of {len(labels)} judged images, {sum(labels)} are bad",
                fix="give --val DIR with both",
            )
