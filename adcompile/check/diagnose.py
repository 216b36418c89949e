"""After a failed verification: narrow it down, and leave a reproducer.

Parts first: a part that is wrong on the reference's own inputs is cut down to the node that is
wrong, by comparing with its float model or with the source model. When every part is right by
itself, a rewrite before the split changed the numbers: the pipeline is bisected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from adcompile.check.bisect import Culprit, bisect_passes, shrink
from adcompile.check.compare import Comparison, compare
from adcompile.check.golden import Recorded, open_sample
from adcompile.check.localize import Oracle, first_node, localize, tensor_errors
from adcompile.check.noise import ADVICE, Level, accumulated, levels, quiet
from adcompile.check.reproducer import Reproducer, write_reproducer
from adcompile.check.tolerance import Tolerance, Tolerances
from adcompile.check.verify import Verification
from adcompile.errors import AdcompileError
from adcompile.interfaces import Array, Feeds
from adcompile.ir import model_io
from adcompile.ir.evaluate import evaluate
from adcompile.lower.gains import read_gains
from adcompile.manifest import Manifest, PartRecord, check_bundle_path, read_manifest
from adcompile.rewrite.pipeline import Pipeline

NO_MODEL = "every part is right by itself; give the source model to examine the rewrites"


@dataclass(frozen=True)
class Diagnosis:
    """What was found. ``stage`` is "part", "pass" or "unknown"; ``text`` one sentence."""

    stage: str
    culprit: str
    text: str
    reproducer: Path | None = None

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        return {
            "stage": self.stage,
            "culprit": self.culprit,
            "text": self.text,
            "reproducer": None if self.reproducer is None else str(self.reproducer),
        }


def diagnose(
    folder: Path, outcome: Verification, reproducer: Path, *, model: ir.Model | None = None
) -> Diagnosis:
    """Narrow down why the bundle in *folder* failed with *outcome*; write to *reproducer*.

    *model* is the source model; without it only parts can be examined.
    """
    manifest = read_manifest(folder)
    tolerances = Tolerances.of(manifest.tolerances)
    samples = [open_sample(folder, s, manifest.files) for s in manifest.golden]
    part = next((p for p in manifest.parts if p.name == outcome.first_bad), None)
    if part is not None:
        return _Part(folder, manifest, part, tolerances, model).examine(samples, reproducer)
    if not outcome.outputs:
        return Diagnosis("unknown", "", "; ".join(outcome.problems) or "nothing was compared")
    if model is None:
        return Diagnosis("unknown", "", NO_MODEL)
    for recorded in samples:
        found = examine_passes(
            model,
            [Pipeline.parse(text) for text in pipeline_texts(manifest.pipeline)],
            recorded.inputs,
            manifest.roles or manifest.contract.roles,
            reproducer,
        )
        if found is not None:
            return found
    return Diagnosis("unknown", "", "no rewrite of the pipeline changes the results by itself")


def pipeline_texts(recorded: str) -> list[str]:
    """The pipelines in a manifest's ``step: text;step: text``."""
    return [item.partition(": ")[2] for item in recorded.split(";") if ": " in item]


@dataclass(frozen=True)
class _Part:
    folder: Path
    manifest: Manifest
    part: PartRecord
    tolerances: Tolerances
    source: ir.Model | None

    def examine(self, samples: Sequence[Recorded], reproducer: Path) -> Diagnosis:
        """Look at the first sample on which the part's own ONNX model is wrong."""
        part = self.part
        actual = self._model("simulation") or self._model("model")
        if actual is None:
            return Diagnosis("part", part.name, f"part {part.name} is wrong; it has no ONNX model")
        heard: list[Level] = []
        failed: tuple[int, str] | None = None
        for number, recorded in enumerate(samples):
            values = recorded.values
            if any(spec.name not in values for spec in part.inputs):
                continue
            problem, made = self._run(actual, self._feeds(recorded), self._expected(recorded))
            heard += levels(number, self._expected(recorded), made)
            if problem and failed is None:
                failed = number, problem
        if failed is None:
            text = f"part {part.name} is wrong where it runs, its ONNX model is right on the CPU"
            return Diagnosis("part", part.name, text)
        number, problem = failed
        failure, text = self._failure(actual, samples[number], number, heard, problem)
        return Diagnosis("part", part.name, text, write_reproducer(reproducer, failure))

    def _feeds(self, recorded: Recorded) -> dict[str, Array]:
        return {spec.name: recorded.values[spec.name] for spec in self.part.inputs}

    def _expected(self, recorded: Recorded) -> dict[str, Array]:
        values = recorded.values
        return {s.name: values[s.name] for s in self.part.outputs if s.name in values}

    def _model(self, use: str) -> ir.Model | None:
        file = self.part.files.get(use)
        if file is None:
            return None
        return model_io.load_model(self.folder / check_bundle_path(file))

    def _run(
        self, model: ir.Model, feeds: Feeds, expected: Mapping[str, Array]
    ) -> tuple[str, Mapping[str, Array]]:
        """What is wrong with the model's results ("" when nothing is), and the results."""
        try:
            found = evaluate(model, feeds)
        except AdcompileError as error:
            return error.why or error.what, {}
        roles = self.manifest.roles or self.manifest.contract.roles
        outputs = {spec.name for spec in self.manifest.model.outputs}
        kinds = {
            name: roles.get(name, "tensor") if name in outputs else "part" for name in expected
        }
        table = dict(self.tolerances.table)
        if (
            kinds
            and "part:snr_db" in table
            and self.tolerances.part(self.part.precision).snr_db is None
        ):
            del table["part:snr_db"]  # a float part of a quantized bundle
        results = compare(expected, found, kinds, Tolerances(table))
        return "; ".join(in_words(c) for c in results if not c.ok), found

    def _failure(
        self,
        actual: ir.Model,
        recorded: Recorded,
        number: int,
        heard: Sequence[Level],
        problem: str,
    ) -> tuple[Reproducer, str]:
        """Smallest reproducer for sample *number*, and what is wrong in a sentence."""
        tolerance = self.tolerances.part(self.part.precision)
        feeds, expected = self._feeds(recorded), self._expected(recorded)
        title = f"Part {self.part.name} of {self.manifest.model.name} for {self.manifest.target}"
        bounds = _bounds(tolerance)
        name, failure, words = self.part.name, None, ""
        for oracle in self._oracles(actual, recorded):
            errors = tensor_errors(oracle, actual, feeds, tolerance)
            located = localize(oracle, actual, feeds, tolerance, errors)
            if located is not None:
                words = (
                    f"{located.value!r} is the first wrong value, "
                    f"made by {first_node(located.model)}: {in_words(located.comparison)}"
                )
                failure = Reproducer(
                    "part", name, title, located.model, located.feeds, located.expected, bounds
                )
                break
            words = words or accumulated(errors, tolerance, heard, number)
        if failure is None:
            failure = Reproducer("part", name, title, actual, feeds, expected, bounds)
        if not words:
            return failure, f"part {name} is wrong as a whole: {problem}"
        if tolerance.snr_db is not None:
            words = ". ".join(text for text in (words, quiet(heard, number), ADVICE) if text)
        return failure, f"part {name}, sample {number}: {words}"

    def _oracles(self, actual: ir.Model, recorded: Recorded) -> list[Oracle]:
        """Who knows the right inner values: the part's float model, the source model."""
        found: list[Oracle] = []
        gains = read_gains(actual)
        if "simulation" in self.part.files and (plain := self._model("model")) is not None:
            found.append(Oracle(plain, self._feeds(recorded), gains))
        if self.source is not None:
            found.append(Oracle(self.source, recorded.inputs, gains))
        return found


def in_words(comparison: Comparison) -> str:
    """What a comparison found, in a few words."""
    if comparison.detail:
        return f"{comparison.name}: {comparison.detail}"
    metrics = comparison.metrics
    return (
        f"{comparison.name}: largest difference {metrics.get('max_abs', 0.0):.3g}, "
        f"SNR {metrics.get('snr_db', 0.0):.1f} dB"
    )


def _bounds(tolerance: Tolerance) -> dict[str, tuple[float, float]]:
    if tolerance.snr_db is not None:
        return {"tensor:snr_db": (tolerance.snr_db, 0.0)}
    return {"tensor": (tolerance.rtol, tolerance.atol)}


def examine_passes(
    model: ir.Model,
    pipelines: Sequence[Pipeline],
    feeds: Feeds,
    roles: Mapping[str, str],
    reproducer: Path,
) -> Diagnosis | None:
    """Bisect *pipelines* on one sample; None when they keep the results within bounds."""
    allowed = frozenset(name for pipeline in pipelines for name in pipeline.names())
    bounds = Tolerances.of({})  # rewrites are exact: the bundle's coarser bounds do not apply

    def judge(reference: Feeds, found: Feeds) -> list[Comparison]:
        return compare(reference, found, roles, bounds)

    culprit = bisect_passes(model, pipelines, feeds, judge, allowed=allowed)
    if culprit is None:
        return None
    text = f"pass {culprit.text} changed the results: " + _harm(culprit)
    try:
        small = shrink(culprit, feeds, tolerances=bounds)
    except ValueError:
        return Diagnosis("pass", culprit.text, text + "; it does no harm on a single graph")
    expected = evaluate(small.model, small.feeds)
    title = f"Pass {culprit.text}, cut down to {small.nodes} nodes in {small.tests} tries"
    failure = Reproducer("pass", culprit.text, title, small.model, small.feeds, expected, {})
    return Diagnosis("pass", culprit.text, text, write_reproducer(reproducer, failure))


def _harm(culprit: Culprit) -> str:
    if culprit.error:
        return culprit.error.splitlines()[0]
    return "; ".join(in_words(c) for c in culprit.comparisons if not c.ok)
