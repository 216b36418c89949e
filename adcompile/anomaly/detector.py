"""Running a finished detector over samples, and what comes out: scores, maps, metrics, evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir

from adcompile.anomaly.images import tensor_of, truth_of
from adcompile.anomaly.maps import Array
from adcompile.anomaly.pixel_metrics import PixelAccumulator, PixelMetrics
from adcompile.anomaly.samples import Sample
from adcompile.anomaly.threshold import Evidence
from adcompile.contract import CONTRACT_KEY, Contract, Preprocess, parse_contract
from adcompile.errors import InputError, ModelError
from adcompile.ir import model_io
from adcompile.manifest import TensorSpec
from adcompile.runtime.executor import Array as Feed
from adcompile.runtime.session import Session, open_session

Watch = Callable[[int, int], None]
See = Callable[[Sample, float, Array], None]
"""Gets every image as it is scored: sample, raw score, raw map [H, W] (valid during the call)."""


@dataclass(frozen=True, slots=True)
class ImageResult:
    """One image: raw score, and extremes of the raw map."""

    sample: Sample
    raw: float
    map_low: float
    map_high: float


@dataclass(frozen=True)
class Outcome:
    """A detector's results over samples, in their order; pixel metrics when masks were there."""

    images: tuple[ImageResult, ...]
    pixel: PixelMetrics | None

    @property
    def scores(self) -> list[float]:
        """Raw scores."""
        return [image.raw for image in self.images]

    @property
    def labels(self) -> list[int]:
        """0 normal, 1 anomalous."""
        return [image.sample.label for image in self.images]

    def evidence(self) -> Evidence:
        """What thresholds are computed from."""
        return Evidence(
            tuple(self.scores),
            tuple(self.labels),
            tuple(image.map_low for image in self.images),
            tuple(image.map_high for image in self.images),
            None if self.pixel is None or not self.pixel.regions else self.pixel.best_threshold,
        )


class Runner(Protocol):
    """Something that executes a graph: a session, or a bundle."""

    @property
    def where(self) -> str:
        """What it is, for messages."""
        ...

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """Its inputs."""
        ...

    def run(self, feeds: Mapping[str, Feed], outputs: Sequence[str]) -> Mapping[str, Feed]:
        """The named outputs."""
        ...


Predict = Callable[[Array], tuple[Array, Array]]
"""Images [n, C, H, W] -> raw scores [n] and raw maps [n, H, W]."""


class Detector:
    """A detector in one ONNX graph with the outputs that :mod:`adcompile.anomaly.heads` writes."""

    def __init__(self, session: Runner, contract: Contract) -> None:
        self._session = session
        self.contract = contract
        spec = session.inputs[0]
        self._input = spec.name
        self._batch = spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else None
        roles = {role: name for name, role in contract.roles.items()}
        score = roles.get("raw_score") or roles.get("score", "")
        if "map" not in roles or not score or self._input not in contract.inputs:
            raise ModelError(
                "the model is no anomaly detector of ours",
                where=session.where,
                why="its contract names no score, map and input",
            )
        if "raw_score" not in roles:
            self.contract = _as_it_comes(contract)
        self._names = (score, roles["map"])

    @property
    def preprocess(self) -> Preprocess:
        """How images become the input."""
        return self.contract.inputs[self._input]

    def __call__(self, images: Array) -> tuple[Array, Array]:
        """Raw scores [n] and raw maps [n, H, W]."""
        step = self._batch or images.shape[0]
        scores: list[Array] = []
        maps: list[Array] = []
        for start in range(0, images.shape[0], step):
            part = images[start : start + step]
            missing = step - part.shape[0]
            if missing:
                part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), np.float32)])
            found = self._session.run({self._input: part}, self._names)
            keep = step - missing
            scores.append(np.asarray(found[self._names[0]], np.float32).reshape(-1)[:keep])
            maps.append(np.asarray(found[self._names[1]], np.float32)[:keep, 0])
        return np.concatenate(scores), np.concatenate(maps)


def _as_it_comes(contract: Contract) -> Contract:
    """A contract for a graph (of another exporter) that gives the normalised score only.

    What such a detector calls raw is on the normalised scale, and so is its threshold.
    """
    score = contract.score
    if score is None or score.normalisation == "none":
        return contract
    changes = {"normalisation": "none", "threshold": score.decision, "pixel_threshold": None}
    return contract.model_copy(update={"score": score.model_copy(update=changes)})


def open_detector(
    source: Path | ir.Model, otherwise: Callable[[], Contract] | None = None
) -> Detector:
    """A detector from a folder written by fit, an ONNX file, or a model in memory.

    *otherwise* gives the contract of a model that declares none. Raises ModelError where neither is
    there.
    """
    path = source if isinstance(source, Path) else None
    if path is not None and path.is_dir():
        path = path / "model.onnx"
    model = model_io.load_model(path) if path is not None else source
    assert isinstance(model, ir.Model)
    text = model.metadata_props.get(CONTRACT_KEY)
    if text is not None:
        declared = parse_contract(text, "model")
    elif otherwise is not None:
        declared = otherwise()
    else:
        raise ModelError("the model declares no contract", where=str(path or model.graph.name))
    data = path if path is not None else model_io.to_bytes(model)
    session = open_session(data)
    return Detector(_SessionRunner(session), declared)


class _SessionRunner:
    def __init__(self, session: Session) -> None:
        self._session = session
        self.where = session.where
        self.inputs = session.inputs

    def run(self, feeds: Mapping[str, Feed], outputs: Sequence[str]) -> Mapping[str, Feed]:
        return self._session.run(feeds, outputs)


def run_samples(
    predict: Predict,
    samples: Sequence[Sample],
    spec: Preprocess,
    *,
    batch: int = 8,
    watch: Watch | None = None,
    see: See | None = None,
) -> Outcome:
    """Score all samples. Maps are streamed: *see* gets each one.

    Pixel metrics are computed when every anomalous sample has a mask and maps have the size of
    the input. A score that is not finite is an error here: training data must be clean.
    """
    bad = [sample for sample in samples if sample.label]
    masks = bool(bad) and all(sample.has_mask() for sample in bad)
    accumulator = PixelAccumulator() if masks else None
    found: list[ImageResult] = []
    for part, images in _batches(samples, spec, batch):
        scores, maps = predict(images)
        for sample, score, heat in zip(part, scores, maps, strict=True):
            if not np.isfinite(score) or not np.isfinite(heat).all():
                raise InputError("the detector's result is not finite", where=str(sample.path))
            low, high = float(heat.min()), float(heat.max())
            found.append(ImageResult(sample, float(score), low, high))
            if see is not None:
                see(sample, float(score), heat)
            if accumulator is not None and heat.shape == spec.size:
                accumulator.add(heat, truth_of(sample, spec))
        if watch is not None:
            watch(len(found), len(samples))
    pixel = accumulator.result() if accumulator is not None else None
    return Outcome(tuple(found), pixel if pixel is not None and pixel.maps else None)


def _batches(
    samples: Sequence[Sample], spec: Preprocess, size: int
) -> Iterator[tuple[Sequence[Sample], Array]]:
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        yield part, np.concatenate([tensor_of(sample, spec) for sample in part], axis=0)
