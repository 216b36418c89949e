"""A detector's parts run over images: float ones, lowered ones, and either with other constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from adcompile.anomaly.chain import Chain
from adcompile.anomaly.detector import Outcome, See, run_samples
from adcompile.anomaly.remeasure.kinds import Head
from adcompile.anomaly.samples import Sample
from adcompile.check.emitted import EmittedPart
from adcompile.check.memory import Memory
from adcompile.contract import Preprocess
from adcompile.interfaces import Part
from adcompile.job import Job
from adcompile.steps.inputs import fixed_specs


@dataclass(frozen=True)
class Runs:
    """Runs of one form of the device parts. While constants of the head change, these parts stay as
    they are: what they gave for an image is remembered.

    ``parts`` are all parts; those named in ``lowered`` run in that form, those in ``instead`` as a
    bundle runs them.
    """

    job: Job
    head: Head
    spec: Preprocess
    parts: Sequence[Part]
    lowered: Mapping[str, Part] = field(default_factory=dict[str, Part])
    instead: Mapping[str, EmittedPart] = field(default_factory=dict[str, EmittedPart])
    memory: Memory = field(default_factory=Memory)

    @property
    def actual(self) -> list[Part]:
        """The parts in the form that runs."""
        return [self.lowered.get(part.name, part) for part in self.parts]

    def having(self, parts: Sequence[Part]) -> Runs:
        """The same device parts with other constants in the host parts."""
        return replace(self, parts=parts)

    def chain(self) -> Chain:
        """The parts as one detector."""
        job, head = self.job, self.head
        return Chain(
            self.actual,
            fixed_specs(job),
            job.source.outputs,
            head.raw,
            head.site.reads,
            self.memory,
            self.instead,
        )

    def outcome(self, samples: Sequence[Sample], see: See | None = None) -> Outcome:
        """What the parts say of *samples*; *see* gets every image."""
        with self.chain() as chain:
            return run_samples(
                chain,
                samples,
                self.spec,
                batch=4,
                watch=lambda done, of: self.watch("judge", done, of),
                see=see,
            )

    def watch(self, what: str, done: int, total: int) -> None:
        """Tell whoever watches the build."""
        self.job.watch(f"{what} {done} of {total}")
