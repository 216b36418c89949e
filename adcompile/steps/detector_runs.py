"""A detector's parts run over images: float ones, lowered ones, and either with other constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from adcompile.anomaly.chain import Chain
from adcompile.anomaly.detector import Outcome, See, run_samples
from adcompile.anomaly.remeasure.kinds import Head
from adcompile.anomaly.samples import Sample
from adcompile.check.memory import Memory
from adcompile.contract import Preprocess
from adcompile.interfaces import Part
from adcompile.job import Job
from adcompile.steps.inputs import fixed_specs


@dataclass
class Runs:
    """All runs of one rebuild. While constants of the head change, the lowered device parts stay as
    they are: what they gave for an image is remembered."""

    job: Job
    head: Head
    spec: Preprocess
    memory: Memory = field(default_factory=Memory)

    @property
    def lowered(self) -> list[Part]:
        """The parts as they will be emitted, with their constants of now."""
        return [self.job.lowered.get(part.name, part) for part in self.job.parts]

    def chain(self) -> Chain:
        """The lowered parts as one detector."""
        return self._chain(self.lowered, self.memory)

    def float_outcome(self, samples: Sequence[Sample], see: See) -> Outcome:
        """What the float parts say of *samples*; *see* gets every image."""
        return self._outcome(self._chain(self.job.parts, None), samples, see)

    def outcome(self, samples: Sequence[Sample]) -> Outcome:
        """What the lowered parts say of *samples*."""
        return self._outcome(self.chain(), samples)

    def _chain(self, parts: Sequence[Part], memory: Memory | None) -> Chain:
        job, head = self.job, self.head
        assert job.source is not None
        specs = fixed_specs(job)
        return Chain(parts, specs, job.source.outputs, head.raw, head.site.reads, memory)

    def _outcome(
        self, opened: Chain, samples: Sequence[Sample], see: See | None = None
    ) -> Outcome:
        with opened as chain:
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
