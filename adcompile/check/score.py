"""How good a split model is with some parts in a device's number format: what an accuracy budget reads.

A scorer takes part name to emitted part (parts that are not named stay in float) and gives metrics by
name. Parts run as the finished bundle runs them, mosaics and all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from adcompile.check.emitted import EmittedPart, outputs_of
from adcompile.check.reference import FloatParts
from adcompile.contract import Contract, Preprocess
from adcompile.detection.evaluate import Detector, Result, evaluate
from adcompile.detection.fixed import FixedSize
from adcompile.errors import UsageError
from adcompile.interfaces import Array, CalibrationData, Part
from adcompile.lower.calibration import MemoryCalibration
from adcompile.lower.search import Noise, decibels
from adcompile.manifest import PartRecord, TensorSpec
from adcompile.runtime.executor import Executor

SNR = "snr"
DETECTION_METRICS = frozenset(
    f"{kind}_{what}" for kind in ("bbox", "segm") for what in ("map", "map50", "map75", "loss")
)
SNR_SAMPLES = 8
SNR_BYTES = 1 << 28  # of reference outputs held in memory, per part
Metrics = dict[str, float]
Emitted = Mapping[str, EmittedPart]


class Scorer(Protocol):
    """``reference``: the metrics of the float model."""

    @property
    def reference(self) -> Metrics: ...

    def __call__(self, emitted: Emitted) -> Metrics:
        """The metrics with *emitted* in the place of their parts."""
        ...


@dataclass
class SnrScorer:
    """Signal-to-noise ratio of the parts in dB, each fed with its float inputs; ``snr`` is the lowest.

    Parts that run per region could not be compared otherwise: with other features they get other
    regions.
    """

    parts: Sequence[Part]
    data: Mapping[str, CalibrationData]
    _noise: dict[str, Noise] = field(default_factory=dict[str, Noise])

    @property
    def reference(self) -> Metrics:
        """No noise: no metric."""
        return {}

    def noise(self, part: Part) -> Noise:
        """The error function of one part; its float outputs are computed once."""
        if part.name not in self._noise:
            self._noise[part.name] = Noise(part.model, few(self.data[part.name]))
        return self._noise[part.name]

    def __call__(self, emitted: Emitted) -> Metrics:
        """The lowest SNR over the parts in *emitted*."""
        worst = 0.0
        for part in self.parts:
            if part.name in emitted:
                with emitted[part.name].opened() as executor:
                    worst = max(worst, self.of(part, emitted[part.name].record, executor))
        return {SNR: decibels(worst)}

    def of(self, part: Part, record: PartRecord, executor: Executor) -> float:
        """The error power of *part* in an open executor."""
        noise = self.noise(part)
        return noise.of(partial(outputs_of, record, executor, noise.names))


def few(data: CalibrationData, most: int = SNR_SAMPLES) -> MemoryCalibration:
    """At most *most* evenly spread samples, bounded in bytes; at least one."""
    wanted = {i * len(data) // most for i in range(most)}
    kept: list[dict[str, Array]] = []
    size = 0
    for index, sample in enumerate(data):
        if index not in wanted:
            continue
        kept.append(sample)
        size += sum(array.nbytes for array in sample.values())
        if size > SNR_BYTES:
            break
    return MemoryCalibration(kept)


@dataclass
class DetectionScorer:
    """COCO average precision of the whole chain of parts on annotated images."""

    parts: Sequence[Part]
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    contract: Contract
    coco: Path
    images: Path
    count: int
    _reference: Metrics = field(default_factory=dict[str, float])

    @property
    def reference(self) -> Metrics:
        """Metrics of the float parts; measured on first use."""
        if not self._reference:
            self._reference = self._measure({})
        return self._reference

    def __call__(self, emitted: Emitted) -> Metrics:
        """Metrics with *emitted*, and the losses against float."""
        return with_losses(self._measure(emitted), self.reference)

    def _measure(self, emitted: Emitted) -> Metrics:
        with FloatParts(self.parts, self.inputs, self.outputs, instead=emitted) as chain:
            name, spec = image_input(self.contract, self.inputs)
            run = FixedSize(lambda tensor: chain.run({name: tensor}).outputs, spec)
            return self.metrics_of(run)

    def metrics_of(self, run: Detector) -> Metrics:
        """Metrics of any detector on the same images."""
        names = dict(enumerate(self.contract.classes)) or None
        result = evaluate(run, self.coco, self.images, self.count, classes=names)
        return detection_metrics(result)


def image_input(contract: Contract, inputs: Sequence[TensorSpec]) -> tuple[str, Preprocess]:
    """The one image input of a detector, and its pre-processing. Raises UsageError."""
    if len(inputs) != 1 or inputs[0].name not in contract.inputs:
        raise UsageError(
            "the model has not one image as its input",
            why=", ".join(spec.name for spec in inputs),
            fix="give a contract with --contract, or use a budget on snr",
        )
    return inputs[0].name, contract.inputs[inputs[0].name]


def detection_metrics(result: Result) -> Metrics:
    """``bbox_map``, ``bbox_map50``, ``bbox_map75`` and the same for ``segm``, 0 … 1."""
    found: Metrics = {}
    for kind, values in (("bbox", result.box), ("segm", result.mask)):
        if values is not None:
            names = (f"{kind}_map", f"{kind}_map50", f"{kind}_map75")
            found |= dict(zip(names, values[:3], strict=True))
    return found


def with_losses(metrics: Metrics, reference: Metrics) -> Metrics:
    """*metrics*, and how much lower than in *reference* the two main ones are (``segm_loss`` …)."""
    losses = {
        f"{kind}_loss": reference[f"{kind}_map"] - metrics[f"{kind}_map"]
        for kind in ("bbox", "segm")
        if f"{kind}_map" in metrics and f"{kind}_map" in reference
    }
    return metrics | losses
