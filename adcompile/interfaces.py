"""What an extension author implements or receives: passes, backends, verdicts, parts.

Every class here is small and stable. Executors have their own protocol in
``adcompile.runtime.executor``, because a board that only runs bundles must not import the IR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.fileset import FileSet
from adcompile.manifest import PartRecord, RewriteRecord, TensorSpec
from adcompile.target import Target

Array = npt.NDArray[np.generic]
Feeds = Mapping[str, Array]


class Exactness(str, Enum):
    """How far a rewrite may move the numbers.

    ``EXACT``: the same real-valued function (floating-point rounding aside).
    ``APPROXIMATE``: another function; never applied unless allowed by name, its error is recorded.
    ``QUANTIZED``: the same function in a coarser number format.
    """

    EXACT = "exact"
    APPROXIMATE = "approximate"
    QUANTIZED = "quantized"


@dataclass
class Report:
    """Collects what passes did; one per compile.

    ``rewrites`` goes into the manifest; ``notes`` are for the person at the terminal.
    """

    allowed: frozenset[str] = frozenset()
    rewrites: list[RewriteRecord] = field(default_factory=list[RewriteRecord])
    notes: list[str] = field(default_factory=list[str])
    refusals: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])

    def applied(
        self, rule: str, node: str, exactness: Exactness = Exactness.EXACT, detail: str = ""
    ) -> None:
        """Record one application of *rule* at *node* (the name of the node it replaced)."""
        self.rewrites.append(
            RewriteRecord(rule=rule, node=node, exactness=exactness.value, detail=detail)
        )

    def refused(self, rule: str, node: str, reason: str) -> None:
        """Record that *rule* matched the shape of *node* but did not apply, and why."""
        self.refusals.append((rule, node, reason))

    def note(self, text: str) -> None:
        """Record a sentence for the user."""
        self.notes.append(text)

    def allows(self, name: str) -> bool:
        """True when the user passed ``--allow NAME`` for this approximate rule or pass."""
        return name in self.allowed


@dataclass(frozen=True)
class Pass:
    """A named unit that changes the graph. Subclasses are frozen dataclasses; fields are options.

    The model must be valid before and after :meth:`run`, not in between. ``run`` returns True
    exactly when the graph changed. ``steps`` maps names other than its own that the pass reports
    rewrites under to what they do; the rules of a rewrite pass need no entry.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    exactness: ClassVar[Exactness] = Exactness.EXACT
    steps: ClassVar[Mapping[str, str]] = {}

    def run(self, model: ir.Model, report: Report) -> bool:
        """Change *model* in place; return True when something changed."""
        raise TypeError(f"pass {type(self).__name__} does not define run()")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a node can run on a target, and why (not).

    ``state`` is ``supported``, ``unsupported`` or ``unknown``; only ``supported`` is truthy.
    ``fix`` suggests a change (a pass, a precision, an export option) and ``fix_exactness`` says
    what that change does to the numbers. ``source`` names where the knowledge comes from. ``about``
    is the reason in two or three words, for tables; "" for one that is as short itself.
    """

    state: str
    reason: str = ""
    fix: str = ""
    fix_exactness: str = ""
    source: str = ""
    about: str = ""

    def __post_init__(self) -> None:
        if self.state not in {"supported", "unsupported", "unknown"}:
            raise ValueError(f"no such verdict: {self.state!r}")
        if self.state != "supported" and not self.reason:
            raise ValueError("a refusal needs a reason")

    def __bool__(self) -> bool:
        return self.state == "supported"

    @classmethod
    def yes(cls, source: str = "") -> Verdict:
        return cls("supported", source=source)

    @classmethod
    def no(
        cls, reason: str, fix: str = "", fix_exactness: str = "", source: str = "", about: str = ""
    ) -> Verdict:
        return cls("unsupported", reason, fix, fix_exactness, source, about)

    @classmethod
    def unknown(cls, reason: str, source: str = "") -> Verdict:
        return cls("unknown", reason, source=source)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a support check may use besides the node: the target and the wanted precision.

    ``rows`` names the values whose axis 0 counts regions of interest (``adcompile.place.rows``):
    a free leading dimension is acceptable there, and nowhere else. ``free_inputs`` names the graph
    inputs whose shape is not fixed: they are to blame when a shape is not static.
    """

    target: Target
    precision: str
    opset: int = 17
    rows: frozenset[str] = frozenset()
    free_inputs: tuple[str, ...] = ()


@dataclass
class Part:
    """A connected, convex piece of the graph that one executor runs, as a model of its own.

    ``model`` has exactly ``inputs`` and ``outputs`` (same names as the values in the whole graph,
    so parts are joined by value name). ``rows`` names the axis-0 meaning when a leading dimension
    counts regions of interest ("roi") instead of images, else "". ``options`` come from the plan
    (``roi_policy`` …) and belong into the part's record.
    """

    name: str
    placement: str  # "device" or "host"
    role: str  # backbone, box_head, mask_head, embedding, head, host …
    model: ir.Model
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: str = "fp32"
    rows: str = ""
    macs: int = 0
    options: dict[str, str] = field(default_factory=dict[str, str])

    def record(
        self,
        executor: str,
        precision: str,
        files: dict[str, str],
        options: Mapping[str, str] | None = None,
    ) -> PartRecord:
        """The part's entry in the manifest; empty *options* are left out."""
        return PartRecord(
            name=self.name,
            placement=self.placement,
            role=self.role,
            executor=executor,
            precision=precision,
            inputs=self.inputs,
            outputs=self.outputs,
            files=files,
            options={key: value for key, value in (options or {}).items() if value},
            rows=self.rows,
            nodes=len(self.model.graph),
            macs=self.macs,
        )


class CalibrationData(Protocol):
    """Recorded tensors at the inputs of one part; iterable any number of times, one sample each.

    Bounded memory: implementations read from disk while iterating. ROI parts hold real rows only.
    """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[dict[str, Array]]: ...


@dataclass(frozen=True, slots=True)
class LowerContext:
    """What a backend gets for one part besides the part itself."""

    target: Target
    precision: str
    calibration: CalibrationData | None
    golden: Sequence[tuple[Feeds, Feeds]]  # (inputs, reference outputs) of this part
    work: Path  # scratch folder of this build; anything written here is thrown away
    options: Mapping[str, str]
    report: Report


@dataclass(frozen=True, slots=True)
class Trial:
    """For the accuracy search in one part: the nodes that round, by name and in order, a function that
    gives the lowered model with any nodes left in float, cheaply, and ``sets`` of nodes that are worth
    leaving together (every node by itself when there are none)."""

    nodes: tuple[str, ...]
    without: Callable[[frozenset[str]], ir.Model]
    sets: tuple[tuple[str, ...], ...] = ()


@runtime_checkable
class Drafting(Protocol):
    """What a backend may have besides: a fast way to try which nodes cost accuracy."""

    def draft(self, part: Part, ctx: LowerContext) -> Trial | None:
        """The trial of a part, or None where its precision has none."""
        ...


@runtime_checkable
class WithOptions(Protocol):
    """What a backend may have besides: its options, name to meaning. With it, other names after ``-O``
    are refused; a backend without it gets whatever is given."""

    options: ClassVar[Mapping[str, str]]


class Backend(Protocol):
    """The code for a target family. ``supports`` and ``emit`` are pure: they run no vendor tool."""

    name: ClassVar[str]

    def supports(self, node: ir.Node, facts: Facts) -> Verdict:
        """Read the family's support table for one node."""
        ...

    def prepare(self, target: Target) -> Sequence[Pass]:
        """The family's own passes that make nodes legal, run before placement."""
        ...

    def lower(self, part: Part, ctx: LowerContext) -> Part:
        """Bring a device part to its precision and dialect; the input part is not changed."""
        ...

    def emit(self, part: Part, lowered: Part, ctx: LowerContext, out: FileSet) -> PartRecord:
        """Add the part's files and actions to *out*; return its manifest record."""
        ...
