"""Compare a bundle with its golden data: outputs by role, and every part by itself.

A detector is also held against the float model on the images kept for that (``check.accuracy``).

For each part two errors are kept. *Isolated*: the part runs on the reference's own inputs, so the
error is its own. *Cumulative*: the error of its results in the whole run, with all that came before.
The first part whose isolated error is out of bounds is named.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from adcompile.check.accuracy import AccuracyCheck, check_accuracy
from adcompile.check.compare import Comparison, compare, compare_tensor, worst
from adcompile.check.golden import Recorded, open_sample
from adcompile.check.tolerance import Tolerances
from adcompile.errors import FormatError, InputError
from adcompile.manifest import Manifest, PartRecord
from adcompile.pack import GOLDEN
from adcompile.runtime.bundle import Bundle, load
from adcompile.runtime.executor import Array
from adcompile.runtime.images import read_image
from adcompile.runtime.preprocess import preprocess
from adcompile.runtime.roi import RowPlan, run_rows
from adcompile.runtime.session import runtime

Watch = Callable[[str], None]


@dataclass(frozen=True)
class PartCheck:
    """Errors of one part, the worst over all samples and its outputs; None where not measured."""

    name: str
    placement: str
    precision: str
    where: str
    simulated: bool
    isolated: Comparison | None = None
    cumulative: Comparison | None = None

    @property
    def ok(self) -> bool:
        """False when the part alone is out of bounds."""
        return self.isolated is None or self.isolated.ok

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        return {
            "name": self.name,
            "placement": self.placement,
            "precision": self.precision,
            "where": self.where,
            "simulated": self.simulated,
            "ok": self.ok,
            "isolated": None if self.isolated is None else self.isolated.record(),
            "cumulative": None if self.cumulative is None else self.cumulative.record(),
        }


@dataclass(frozen=True)
class Verification:
    """The answer of :func:`verify_bundle`. ``outputs`` holds (sample number, comparison)."""

    outputs: tuple[tuple[int, Comparison], ...]
    parts: tuple[PartCheck, ...]
    samples: int
    verified_on: str
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    accuracy: AccuracyCheck | None = None

    @property
    def ok(self) -> bool:
        """Everything within bounds, and at least one sample was compared."""
        return self.reproduces and (self.accuracy is None or self.accuracy.ok)

    @property
    def reproduces(self) -> bool:
        """The same, but for what was lost against the float model."""
        return (
            self.samples > 0
            and not self.problems
            and all(c.ok for _, c in self.outputs)
            and all(part.ok for part in self.parts)
        )

    @property
    def first_bad(self) -> str:
        """Name of the first part that is wrong by itself, else ""."""
        return next((part.name for part in self.parts if not part.ok), "")

    @property
    def simulated(self) -> tuple[str, ...]:
        """Parts that did not run on their device."""
        return tuple(part.name for part in self.parts if part.simulated)

    def results(self) -> dict[str, float | str]:
        """The numbers that the manifest keeps. No times: the same bundle gives the same record."""
        found: dict[str, float | str] = {"ok": "yes" if self.ok else "no"}
        if self.first_bad:
            found["first_bad"] = self.first_bad
        by_name: dict[str, list[Comparison]] = {}
        for _, each in self.outputs:
            by_name.setdefault(each.name, []).append(each)
        for name, several in by_name.items():
            for metric, value in worst(several).metrics.items():
                found[f"output {name} {metric}"] = _rounded(value)
        for part in self.parts:
            for kind, error in (("isolated", part.isolated), ("cumulative", part.cumulative)):
                if error is not None and "snr_db" in error.metrics:
                    found[f"part {part.name} {kind} snr_db"] = _rounded(error.metrics["snr_db"])
        return found if self.accuracy is None else found | self.accuracy.results()

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        return {
            "ok": self.ok,
            "samples": self.samples,
            "first_bad": self.first_bad,
            "simulated": list(self.simulated),
            "verified_on": self.verified_on,
            "problems": list(self.problems),
            "notes": list(self.notes),
            "outputs": [{"sample": n, **c.record()} for n, c in self.outputs],
            "parts": [part.record() for part in self.parts],
            "accuracy": None if self.accuracy is None else self.accuracy.record(),
        }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def verify_bundle(
    folder: Path,
    *,
    device: str = "auto",
    samples: int | None = None,
    isolate: bool = True,
    threads: int | None = None,
    watch: Watch | None = None,
) -> Verification:
    """Check files and hashes, run every golden sample, compare.

    *samples* limits how many; *isolate* False skips running parts by themselves. Differences are in
    the result; a damaged bundle raises FormatError, a bundle without golden data InputError.
    """
    with load(folder, device, threads=threads) as bundle:
        manifest = bundle.manifest
        if not manifest.golden:
            packed = GOLDEN in manifest.left_out
            fix = "build it again without --verify none, or with --golden IMAGE or FILE.npz"
            raise InputError(
                "the bundle has no golden data",
                where=str(folder),
                why="it was packed without" if packed else "",
                fix="pack it with its golden data" if packed else fix,
            )
        chosen = manifest.golden[:samples]
        state = _State(bundle, Tolerances.of(manifest.tolerances), watch or (lambda _text: None))
        for number, sample in enumerate(chosen):
            recorded = open_sample(bundle.path, sample, manifest.files)
            _check_names(manifest, recorded)
            state.sample(number, recorded, isolate=isolate)
        found = state.result(len(chosen))
        if manifest.accuracy is None:
            return found
        return replace(found, accuracy=check_accuracy(bundle, manifest.accuracy, watch))


def _check_names(manifest: Manifest, recorded: Recorded) -> None:
    wanted = {spec.name for spec in manifest.model.outputs}
    if set(recorded.outputs) != wanted:
        raise FormatError(
            "golden outputs are not the model's",
            why=", ".join(sorted(set(recorded.outputs) ^ wanted)),
            fix="build the bundle again",
        )


class _State:
    """What was found so far, over all samples."""

    def __init__(self, bundle: Bundle, tolerances: Tolerances, watch: Watch) -> None:
        self._bundle = bundle
        self._tolerances = tolerances
        self._watch = watch
        self._outputs: list[tuple[int, Comparison]] = []
        self._isolated: dict[str, list[Comparison]] = {}
        self._cumulative: dict[str, list[Comparison]] = {}
        self._problems: list[str] = []

    def sample(self, number: int, recorded: Recorded, *, isolate: bool) -> None:
        """Run one sample through the whole bundle, then each part alone."""
        self._watch(f"sample {number}: whole bundle")
        self._preprocessing(number, recorded)
        manifest = self._bundle.manifest
        known = {**recorded.boundaries, **recorded.outputs}
        makers = {s.name: p for p in manifest.parts for s in p.outputs if s.name in known}
        made: dict[str, dict[str, Array]] = {}

        def tap(name: str, array: Array) -> None:
            part = makers.get(name)
            if part is None:
                return
            own = made.setdefault(part.name, {})
            own[name] = array
            expected = {s.name: known[s.name] for s in part.outputs if s.name in known}
            if len(own) == len(expected):  # detections are compared together
                errors = self._compare(part, expected, made.pop(part.name))
                self._cumulative.setdefault(part.name, []).extend(errors)

        try:
            result = self._bundle.run(recorded.inputs, tap=tap)
        except InputError as error:
            self._problems.append(f"sample {number}: {error.what}: {error.where} {error.why}")
        else:
            self._outputs += [(number, each) for each in self._judge(recorded, result.outputs)]
        if isolate:
            for part in manifest.parts:
                self._alone(number, part, recorded.values)

    def _judge(self, recorded: Recorded, outputs: Mapping[str, Array]) -> list[Comparison]:
        """The final outputs by role, in the model's order."""
        manifest = self._bundle.manifest
        expected = {s.name: recorded.outputs[s.name] for s in manifest.model.outputs}
        roles = manifest.roles or manifest.contract.roles
        return compare(expected, outputs, roles, self._tolerances, manifest.contract.score)

    def _preprocessing(self, number: int, recorded: Recorded) -> None:
        """The kept image, pre-processed again, must give the recorded input exactly."""
        if recorded.image is None:
            return
        pixels = read_image(recorded.image)
        for name, rule in self._bundle.manifest.contract.inputs.items():
            if name not in recorded.inputs:
                continue
            again = preprocess(pixels, rule)
            if not np.array_equal(again, recorded.inputs[name]):
                self._problems.append(
                    f"sample {number}: pre-processing {recorded.image.name} does not give the "
                    f"recorded input {name!r}: the contract was changed"
                )

    def _alone(self, number: int, part: PartRecord, values: Mapping[str, Array]) -> None:
        if any(spec.name not in values for spec in part.inputs):
            return
        known = {s.name: values[s.name] for s in part.outputs if s.name in values}
        if not known:
            return
        self._watch(f"sample {number}: part {part.name}")
        feeds = {spec.name: values[spec.name] for spec in part.inputs}
        plan = RowPlan.of(part)
        executor = self._bundle.executor(part)
        try:
            made = executor.run(feeds) if plan is None else run_rows(plan, executor, feeds)[0]
        except InputError as error:
            failed = Comparison(part.name, "part", False, "runs", {}, f"{error.what}: {error.why}")
            self._isolated.setdefault(part.name, []).append(failed)
            return
        self._isolated.setdefault(part.name, []).extend(self._compare(part, known, made))

    def _compare(
        self, part: PartRecord, known: Mapping[str, Array], made: Mapping[str, Array]
    ) -> list[Comparison]:
        """A part's tensors; those that are outputs of the model, by their role."""
        manifest = self._bundle.manifest
        roles = manifest.roles or manifest.contract.roles
        final = {spec.name for spec in manifest.model.outputs}
        outputs = {n: a for n, a in known.items() if n in final}
        found = compare(outputs, made, roles, self._tolerances, manifest.contract.score)
        tolerance = self._tolerances.part(part.precision)
        for name, array in known.items():
            if name in final:
                continue
            if name not in made:
                found.append(Comparison(name, "part", False, "present", detail="missing"))
            else:
                found.append(compare_tensor(name, "part", array, made[name], tolerance))
        return found

    def result(self, samples: int) -> Verification:
        """Everything found, worst first where there are several."""
        parts: list[PartCheck] = []
        for part in self._bundle.manifest.parts:
            executor = self._bundle.executor(part)
            check = PartCheck(
                part.name, part.placement, part.precision, executor.where, executor.simulated
            )
            isolated, cumulative = (
                self._isolated.get(part.name),
                self._cumulative.get(part.name),
            )
            parts.append(
                replace(
                    check,
                    isolated=worst(isolated) if isolated else None,
                    cumulative=worst(cumulative) if cumulative else None,
                )
            )
        moved = _moved_regions(self._bundle.manifest, parts)
        return Verification(
            tuple(self._outputs),
            tuple(parts),
            samples,
            machine(parts),
            tuple(self._problems),
            (moved,) if moved else (),
        )


def _moved_regions(manifest: Manifest, parts: Sequence[PartCheck]) -> str:
    """A sentence for a detector whose regions are others, or elsewhere in their list, in a whole run.

    Then the tensors of its region parts cannot be compared row by row, and low numbers are no error.
    """
    far = {p.name for p in parts if p.ok and p.cumulative is not None and not p.cumulative.ok}
    if not any(record.rows and record.name in far for record in manifest.parts):
        return ""
    names = ", ".join(part.name for part in parts if part.name in far)
    return (
        f"in the whole run {names} are compared region by region in the order of the list; where the "
        "device's numbers change the choice or the order of regions, these values say little. The "
        "outputs are matched by overlap"
    )


def machine(parts: Sequence[PartCheck]) -> str:
    """In words, on what a bundle was verified; simulated device parts are said to be simulated."""
    base = f"{platform.machine()}, ONNX Runtime {runtime().__version__}"
    simulated = [part.name for part in parts if part.simulated]
    return base + (f", simulated: {', '.join(simulated)}" if simulated else "")
