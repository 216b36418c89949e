"""What a build is asked for, what it knows while it runs, and what comes out."""

from __future__ import annotations

import difflib
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, overload

import onnx_ir

from adcompile import registry
from adcompile.anomaly.accuracy import METRICS
from adcompile.anomaly.lint import Issue
from adcompile.anomaly.rebuild import Rebuilt
from adcompile.backend_options import check_names
from adcompile.cache import StepCache
from adcompile.check.golden import GoldenInput
from adcompile.check.score import DETECTION_METRICS, SNR
from adcompile.contract import Contract
from adcompile.errors import PassError, UsageError
from adcompile.fileset import FileSet
from adcompile.interfaces import (
    Array,
    Backend,
    CalibrationData,
    Part,
    Pass,
    Report,
    WithOptions,
)
from adcompile.lower.search import TRIES, Budget, parse_budgets
from adcompile.manifest import Accuracy, GoldenSample, Manifest, ModelRecord, PartRecord
from adcompile.outputs import Taken
from adcompile.place.plan import Plan
from adcompile.place.targets import resolve_target
from adcompile.target import PRECISIONS, Target, check_precision

Watch = Callable[[str], None]
Samples = list[tuple[Mapping[str, Array], Mapping[str, Array]]]
BUILD_KEY = "build_key"
DIGEST = "sha256:"
SHORT = 40  # characters: longer fields of the identity are recorded as a digest


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What a user may ask of a build; the defaults work.

    ``precision`` None means the target's first. ``calib`` is a folder of images, a recording or
    ``model_io`` folders; ``golden`` images or ``.npz`` files to record reference data from.
    ``settings`` change attributes of the model before all else: ``NODE attribute=value``.
    ``pins`` maps a node name, ``op:TYPE``, ``re:REGEX`` or ``role:ROLE`` to ``host``, ``device`` or a
    precision. ``classes`` names the labels of a detector,
    label 0 first. ``budget`` is a bound such as ``snr>=30`` or ``segm_map>=0.40``; bounds on average
    precision are measured on the first ``eval_samples`` images of ``coco`` (in ``coco_images``),
    those of an anomaly detector (``auroc_loss<=0.01``, several with commas) on at most that many
    images of ``val``; ``budget_tries`` bounds how many choices of one kind are measured.
    ``decoder`` is what a detector's raw output needs to become boxes: the name of a decoder with its
    options, ``none``, or None for what the contract says or the model shows.
    ``head`` is where the search and scoring of an anomaly detector run: ``host`` or ``device``.
    ``data`` are normal images to measure its constants (bank, statistics, quantiles) and threshold
    on again with the lowered network, judged on ``val``, which alone measures the threshold (and what
    else needs no training images) again; ``bank_format`` ``r0`` adds the file of
    R0's application. ``locked`` is the manifest (or bundle) that this build must give again.
    Paths may be given as text.
    """

    precision: str | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    calib: Path | None = None
    golden: tuple[Path, ...] = ()
    golden_count: int = 2
    preprocess: str | None = None
    contract: Contract | None = None
    classes: tuple[str, ...] = ()
    decoder: str | None = None
    plan: Path | None = None
    pins: Mapping[str, str] = field(default_factory=dict[str, str])
    allow: tuple[str, ...] = ()
    passes: tuple[str | Pass, ...] = ()
    head: str = "host"
    settings: tuple[str, ...] = ()
    backend_class: str | None = None
    backend_options: Mapping[str, str] = field(default_factory=dict[str, str])
    data: Path | None = None
    val: Path | None = None
    bank_format: str = "adbank"
    budget: str | None = None
    budget_tries: int = TRIES
    coco: Path | None = None
    coco_images: Path | None = None
    eval_samples: int = 100
    verify: str = "auto"
    strict: bool = False
    locked: Path | None = None
    host_code: bool = True
    force: bool = False
    cache: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        self._settle_paths()
        if self.budget is not None:
            _check_metrics(parse_budgets(self.budget))
        if self.budget_tries < 2:
            raise UsageError(
                f"{self.budget_tries} tries to hold the budget",
                fix="at least two: nothing and all",
            )
        if self.eval_samples < 1:
            raise UsageError(f"{self.eval_samples} images to evaluate", fix="at least one")
        if self.verify not in {"auto", "none"}:
            raise UsageError(f"--verify {self.verify!r}", fix="auto or none")
        if self.bank_format not in {"adbank", "r0"}:
            raise UsageError(f"--bank-format {self.bank_format!r}", fix="adbank or r0")
        if self.head not in {"host", "device"}:
            raise UsageError(f"--head {self.head!r}", fix="host or device")
        known = {"host", "device", *PRECISIONS}
        wrong = sorted({v for v in self.pins.values()} - known)
        if wrong:
            raise UsageError(
                f"cannot pin to {wrong[0]!r}", fix="host or device, or a precision of the target"
            )

    def _settle_paths(self) -> None:
        """Text becomes a path, one golden file a tuple of one."""
        for name in ("calib", "plan", "data", "val", "coco", "coco_images", "locked"):
            value: object = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, Path(value))
        golden: object = self.golden
        several = (golden,) if isinstance(golden, (str, Path)) else self.golden
        object.__setattr__(self, "golden", tuple(Path(path) for path in several))

    def changed(self, changes: Mapping[str, Any]) -> BuildOptions:
        """A copy with other values. Raises UsageError for a name that is no option."""
        known = [item.name for item in fields(self)]
        for name in changes:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                fix = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
                raise UsageError(f"a build has no option {name!r}", fix=fix)
        return replace(self, **changes)


def _check_metrics(budgets: Sequence[Budget]) -> None:
    known = sorted({SNR} | DETECTION_METRICS | METRICS)
    for budget in budgets:
        if budget.metric not in known:
            raise UsageError(
                f"no metric {budget.metric!r} for a budget", fix=f"known: {', '.join(known)}"
            )


@dataclass(repr=False)
class BuildResult:
    """Where the bundle is, what it holds, and whether it matches its golden data."""

    path: Path
    manifest: Manifest
    ok: bool
    notes: list[str]
    steps: list[tuple[str, str, str]]
    seconds: float
    search: dict[str, object] = field(default_factory=dict[str, object])
    rebuilt: Rebuilt | None = None

    def __repr__(self) -> str:
        parts = ", ".join(f"{p.name} ({p.placement})" for p in self.manifest.parts)
        state = "ok" if self.ok else "FAILED"
        return f"<BuildResult {str(self.path)!r} for {self.manifest.target}: {state}; {parts}>"

    def record(self) -> dict[str, object]:
        """The result as plain data, for ``--json``."""
        return {
            "bundle": str(self.path),
            "ok": self.ok,
            "seconds": round(self.seconds, 2),
            "notes": self.notes,
            "steps": [{"step": s, "state": t, "reason": r} for s, t, r in self.steps],
            "search": self.search,
            "rebuilt": None if self.rebuilt is None else self.rebuilt.record(),
            "manifest": self.manifest.model_dump(mode="json"),
        }


T = TypeVar("T")


class Made(Generic[T]):
    """A field of the job that a step fills in. To read it before is a defect in the order of steps."""

    def __set_name__(self, owner: type[object], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, job: None, owner: type[object]) -> Made[T]: ...
    @overload
    def __get__(self, job: object, owner: type[object]) -> T: ...
    def __get__(self, job: object | None, owner: type[object]) -> T | Made[T]:
        if job is None:
            return self
        try:
            return cast("T", vars(job)[self._name])
        except KeyError:
            raise PassError(f"no step has made the job's {self._name} yet") from None

    def __set__(self, job: object, value: T) -> None:
        vars(job)[self._name] = value


@dataclass
class Job:
    """The state of one build. Each step fills the fields below its own line."""

    target: Target
    backend: Backend
    precision: str
    options: BuildOptions
    output: Path | None
    watch: Watch
    report: Report
    cache: StepCache
    started: float
    work: Path  # scratch; removed at the end, whatever happens
    # load
    source = Made[ModelRecord]()
    folder: Path | None = None  # of a fitted model
    reference = Made[onnx_ir.Model]()  # as the user gave it
    ir = Made[onnx_ir.Model]()  # the one that is compiled
    contract: Contract = field(default_factory=Contract)
    outputs: dict[str, Taken] = field(default_factory=dict[str, Taken])
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    fields: dict[str, str] = field(default_factory=dict[str, str])  # what decides the bundle
    # specialize, canonicalize, prepare
    pipeline: list[str] = field(default_factory=list[str])
    issues: list[Issue] = field(default_factory=list["Issue"])  # contradictions of the contract
    float_nodes: tuple[str, ...] = ()  # nodes that keep float32 in a coarser device part
    # place and partition
    plan = Made[Plan]()
    parts: list[Part] = field(default_factory=list[Part])
    # golden
    inputs: list[GoldenInput] = field(default_factory=list[GoldenInput])
    golden: list[GoldenSample] = field(default_factory=list[GoldenSample])
    boundaries: list[dict[str, Array]] = field(default_factory=list[dict[str, Array]])
    calibration: dict[str, CalibrationData] = field(default_factory=dict[str, CalibrationData])
    calibration_id: str = ""  # digest of the calibration data
    row_counts: dict[str, list[int]] = field(default_factory=dict[str, list[int]])  # per image
    # budget
    search: dict[str, object] = field(default_factory=dict[str, object])  # see steps.search_record
    # lower
    lowered: dict[str, Part] = field(default_factory=dict[str, Part])
    # rebuild
    rebuilt: Rebuilt | None = None
    flip_images: dict[str, Path] = field(default_factory=dict[str, Path])  # by name in the report
    accuracy: Accuracy | None = None  # what the float model said, and how far from it is too far
    # emit, write
    files: FileSet = field(default_factory=FileSet)
    records: list[PartRecord] = field(default_factory=list[PartRecord])
    staged = Made[Path]()
    manifest = Made[Manifest]()
    ok: bool = True

    @classmethod
    def create(
        cls,
        target: str,
        output: str | Path | None,
        options: BuildOptions,
        watch: Watch | None,
        work: Path,
    ) -> Job:
        """Resolve target, backend and precision; raises UsageError naming the nearest names."""
        resolved = resolve_target(target, backend=options.backend_class or "")
        reference = options.backend_class or resolved.family
        found = registry.BACKENDS.lookup(reference)
        if not callable(found):
            raise UsageError(f"backend {reference!r} is not a class")
        backend = cast("Backend", found())
        if isinstance(backend, WithOptions):
            check_names(resolved.family, options.backend_options, backend.options)
        return cls(
            target=resolved,
            backend=backend,
            precision=check_precision(resolved, options.precision),
            options=options,
            output=None if output is None else Path(output),
            watch=watch or (lambda _step: None),
            report=Report(allowed=frozenset(options.allow)),
            cache=StepCache() if options.cache else StepCache(None),
            started=time.monotonic(),
            work=work,
        )

    def seconds(self) -> float:
        """Wall time since the build began."""
        return time.monotonic() - self.started

    def samples_of(self, part: Part) -> Samples:
        """Recorded inputs and reference outputs of one part, from the golden samples.

        Samples beyond the limit for boundary tensors have none and are left out.
        """
        names = [spec.name for spec in (*part.inputs, *part.outputs)]
        return [
            (
                {spec.name: values[spec.name] for spec in part.inputs},
                {spec.name: values[spec.name] for spec in part.outputs},
            )
            for values in self.boundaries
            if all(name in values for name in names)
        ]

    def settle_output(self) -> Path:
        """The bundle folder: what was asked for, else ``build/<model>-<target>``."""
        if self.output is None:
            safe = self.target.name.replace(":", "-").replace("@", "-")
            self.output = Path("build") / f"{Path(self.source.name).name}-{safe}"
        return self.output

    def identity(self) -> dict[str, str]:
        """``fields`` for the manifest: short values as they are, long ones as a digest."""
        return {
            name: value if len(value) <= SHORT else DIGEST + _sha256(value)[:12]
            for name, value in self.fields.items()
        }

    def recorded_options(self) -> dict[str, str]:
        """What the manifest says about the options: the effective ones, and the build key."""
        return {
            BUILD_KEY: _sha256(json.dumps(self.fields, sort_keys=True)),
            "precision": self.precision,
            "seed": str(self.options.seed),
            **{f"backend.{k}": v for k, v in sorted(self.options.backend_options.items())},
        }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
