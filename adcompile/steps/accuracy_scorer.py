"""How good an anomaly detector is with some parts in a device's number format: what an accuracy budget
such as ``auroc_loss<=0.01`` reads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from adcompile.anomaly.accuracy import Answers, distance, useless
from adcompile.anomaly.detector import See
from adcompile.check.score import Emitted, Metrics
from adcompile.contract import Score
from adcompile.errors import InputError
from adcompile.job import Job
from adcompile.steps.detector_runs import Runs
from adcompile.steps.judging import Collected, kept_of
from adcompile.steps.remaking import Task, remake, task_of


@dataclass
class AccuracyScorer:
    """Every try gets constants of its own, as the finished bundle will, and is held against the float
    detector on the images that the bundle will be judged on."""

    job: Job
    task: Task = field(init=False)
    _float: Answers | None = None

    def __post_init__(self) -> None:
        task = task_of(self.job)
        judged = task.images.judged
        kept = tuple(judged[number] for number in kept_of(self.job, judged))
        self.task = replace(task, images=replace(task.images, judged=kept))

    @property
    def labels(self) -> list[int]:
        """Of the judged images: 0 normal, 1 anomalous."""
        return [sample.label for sample in self.task.images.judged]

    @property
    def reference(self) -> Metrics:
        """The float detector held against itself: no losses, correlations of 1."""
        answers = self._reference()
        return distance(answers, answers, self.labels)

    def __call__(self, emitted: Emitted) -> Metrics:
        """The metrics with *emitted* in the place of their parts."""
        task, job = self.task, self.job
        runs = Runs(job, task.head, task.spec, job.parts, instead=emitted)
        seen: list[Collected] = []

        def collect(score: Score) -> See:
            contract = job.contract.model_copy(update={"score": score})
            seen.append(Collected(contract, self._raw_map))
            return seen[0].see

        try:
            remake(task, runs, collect)
        except InputError:
            # all features or scores are alike, or not finite: nothing is left of it
            return useless(self.reference)
        return distance(self._reference(), seen[0].answers(), self.labels)

    @property
    def _raw_map(self) -> bool:
        return self.task.head.raw.map in self.job.contract.roles

    def _reference(self) -> Answers:
        if self._float is None:
            task, job = self.task, self.job
            seen = Collected(job.contract, self._raw_map)
            Runs(job, task.head, task.spec, job.parts).outcome(task.images.judged, seen.see)
            self._float = seen.answers()
        return self._float
