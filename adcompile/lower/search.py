"""Accuracy search: which nodes cost how much, and the fewest to promote until a budget holds.

A node is promoted by keeping it in float (it then runs on the CPU), a whole part by a higher
precision. ``isolated`` error: only this node quantized. ``cumulative``: everything up to and including
it. The search promotes the most sensitive first and remembers every step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.errors import UsageError
from adcompile.interfaces import Array, CalibrationData, Feeds, Trial
from adcompile.ir.evaluate import open_model
from adcompile.ir.shapes import infer_shapes
from adcompile.place.cost import work

TRIES = 24  # of one search, unless the user says otherwise

_BUDGET = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.]*)\s*(>=|<=)\s*(-?[0-9.]+(?:e-?[0-9]+)?)\s*\Z")


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound on one metric: ``snr >= 30``."""

    metric: str
    at_least: bool
    value: float

    def holds(self, metrics: Mapping[str, float]) -> bool:
        """True when the bound is met. An absent metric is a UsageError naming those that exist."""
        if self.metric not in metrics:
            raise UsageError(
                f"no metric {self.metric!r}", fix=f"known: {', '.join(sorted(metrics))}"
            )
        return self.missing(metrics) <= 0.0

    def missing(self, metrics: Mapping[str, float]) -> float:
        """How far the metric is from the bound; not positive when it holds."""
        found = metrics[self.metric]
        return self.value - found if self.at_least else found - self.value

    def __str__(self) -> str:
        return f"{self.metric}{'>=' if self.at_least else '<='}{self.value:g}"


def parse_budget(text: str) -> Budget:
    """``"snr>=30"`` to a :class:`Budget`. Raises UsageError."""
    match = _BUDGET.match(text)
    if match is None:
        raise UsageError(
            f"not a budget: {text!r}", fix='write it like "snr>=30" or "segm_map>=0.40"'
        )
    try:
        return Budget(match.group(1), match.group(2) == ">=", float(match.group(3)))
    except ValueError as error:
        raise UsageError(f"not a number in {text!r}") from error


def parse_budgets(text: str) -> tuple[Budget, ...]:
    """Bounds with commas between them, all of which must hold. Raises UsageError."""
    return tuple(parse_budget(each) for each in text.split(","))


@dataclass(frozen=True, slots=True)
class Step:
    """One point of the search: nodes in float, parts in a higher precision, how many nodes that
    promotes, their share of the multiply-adds, and the metrics."""

    floats: tuple[str, ...]
    precisions: tuple[tuple[str, str], ...]
    promoted: int
    share: float
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Search:
    """The step that met the budget (None: none did) and all steps that were tried."""

    chosen: Step | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """SNR in dB at the part's outputs, ``isolated`` and ``cumulative``; ``macs`` of the node."""

    node: str
    isolated: float
    cumulative: float
    macs: int


class Noise:
    """Error power of other forms of a float model on the same data: error over signal power, the
    largest over its outputs. The float outputs are computed once and kept."""

    def __init__(self, model: ir.Model, data: CalibrationData) -> None:
        session = open_model(model, optimize=True)
        self.names = [o.name for o in session.get_outputs()]
        self._data = data
        self._wanted = [session.run(self.names, dict(feeds)) for feeds in data]
        self._signal = sum(_powers(reference) for reference in self._wanted) + 1e-30

    def __call__(self, other: ir.Model) -> float:
        """The error power of another model with the same inputs and outputs."""
        session = open_model(other, optimize=True)
        return self.of(lambda feeds: session.run(self.names, dict(feeds)))

    def of(self, run: Callable[[Feeds], Sequence[Array]]) -> float:
        """The error power of anything that gives the outputs called ``names``, in that order."""
        return self.of_results(run(feeds) for feeds in self._data)

    def of_results(self, results: Iterable[Sequence[Array]]) -> float:
        """The error power of *results*: for every sample the outputs called ``names``, in that order."""
        noise = np.zeros(len(self.names))
        for reference, found in zip(self._wanted, results, strict=True):
            noise += _powers([np.subtract(a, b) for a, b in zip(reference, found, strict=True)])
        return float(np.max(noise / self._signal))


def _powers(arrays: Sequence[Array]) -> npt.NDArray[np.float64]:
    return np.array([float(np.square(a, dtype=np.float64).sum()) for a in arrays])


def decibels(noise: float) -> float:
    """Error power as a signal-to-noise ratio; 300 dB stands for no error at all."""
    return -10.0 * float(np.log10(max(noise, 1e-30)))


def node_macs(model: ir.Model, rows: int = 1) -> dict[str, int]:
    """Multiply-adds of every node of the main graph, by name; shapes are inferred on a copy, and a
    free first dimension counts as *rows*."""
    copy = model.clone()
    infer_shapes(copy)
    return {n.name or "": work(n, rows) for n in copy.graph}


def sensitivity(
    model: ir.Model,
    trial: Trial,
    alone: Callable[[ir.Model], float],
    upto: Callable[[ir.Model], float],
    watch: Callable[[int, int], None] | None = None,
) -> list[Sensitivity]:
    """Isolated and cumulative SNR of the nodes of *trial* (in execution order), worst first.

    *alone* and *upto* both give the error power of a variant: one of variants that are float but for a
    node, the other of those that are quantized up to one.
    """
    macs = node_macs(model)
    floats = all_nodes(model, trial)
    found: list[Sensitivity] = []
    for index, name in enumerate(trial.nodes):
        if watch is not None:
            watch(index, len(trial.nodes))
        single = alone(trial.without(floats - {name}))
        before = upto(trial.without(floats - set(trial.nodes[: index + 1])))
        row = Sensitivity(name, decibels(single), decibels(before), macs.get(name, 0))
        found.append(row)
    return sorted(found, key=lambda s: (s.isolated, s.node))


def all_nodes(model: ir.Model, trial: Trial) -> frozenset[str]:
    """The names with which everything in a part is left in float."""
    return frozenset(n.name or "" for n in model.graph).union(trial.nodes, *trial.sets)


def fewest(count: int, at: Callable[[int], Step], budget: Budget, tries: int = TRIES) -> Search:
    """The smallest number of promotions, 0 to *count*, at which *budget* holds.

    ``at(n)`` tries the first *n*. Doubles the number until the budget holds, then halves the gap: few
    tries even for many nodes, and exact when one more promotion never hurts. At most *tries* tries (two
    at least): the last one that may find the budget held promotes everything.
    """
    steps: dict[int, Step] = {}

    def tried(number: int) -> Step:
        if number not in steps:
            steps[number] = at(number)
        return steps[number]

    low, high = -1, 0
    while not budget.holds(tried(high).metrics):
        if high == count:
            return Search(None, tuple(steps[c] for c in sorted(steps)))
        low, high = high, min(max(1, high * 2), count)
        if len(steps) + 1 >= tries:
            high = count
    while high - low > 1 and len(steps) < tries:
        middle = (low + high) // 2
        low, high = (low, middle) if budget.holds(tried(middle).metrics) else (middle, high)
    return Search(tried(high), tuple(steps[c] for c in sorted(steps)))


def most_tries(count: int, tries: int = TRIES) -> int:
    """How many tries :func:`fewest` needs at most for *count* promotions."""
    doublings = max(count - 1, 0).bit_length()
    return min(1 + (1 + doublings if count else 0) + max(doublings - 1, 0), max(tries, 2))


def pareto(steps: Sequence[Step], budget: Budget) -> list[Step]:
    """Steps that no other beats in both promoted nodes and the metric, fewest nodes first."""
    best: list[Step] = []
    for step in sorted(steps, key=lambda s: (s.promoted, budget.missing(s.metrics))):
        if not best or budget.missing(step.metrics) < budget.missing(best[-1].metrics):
            best.append(step)
    return best
