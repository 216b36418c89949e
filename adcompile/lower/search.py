"""Accuracy search: which nodes cost how much, and the fewest to keep in float until a budget holds.

``isolated`` error: only this node quantized. ``cumulative``: everything up to and including it. The
search keeps the most sensitive nodes in float and remembers every step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from adcompile.errors import UsageError
from adcompile.interfaces import CalibrationData
from adcompile.ir.evaluate import open_model
from adcompile.ir.graph import macs
from adcompile.ir.shapes import infer_shapes
from adcompile.lower.points import is_quantized
from adcompile.lower.scheme import Scheme

Evaluator = Callable[[ir.Model], Mapping[str, float]]
Quantize = Callable[[frozenset[str]], ir.Model]
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
        found = metrics[self.metric]
        return found >= self.value if self.at_least else found <= self.value


def parse_budget(text: str) -> Budget:
    """``"snr>=30"`` to a :class:`Budget`. Raises UsageError."""
    match = _BUDGET.match(text)
    if match is None:
        raise UsageError(f"not a budget: {text!r}", fix='write it like "snr>=30"')
    return Budget(match.group(1), match.group(2) == ">=", float(match.group(3)))


@dataclass(frozen=True, slots=True)
class Step:
    """One point of the search: nodes in float, their share of multiply-adds, the metrics."""

    floats: tuple[str, ...]
    share: float
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Search:
    """The step that met the budget (None: none did) and all steps, fewest float nodes first."""

    chosen: Step | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """SNR in dB at the outputs: ``isolated`` and ``cumulative``; ``macs`` of the node."""

    node: str
    isolated: float
    cumulative: float
    macs: int


def snr_of(model: ir.Model, data: CalibrationData) -> Evaluator:
    """An evaluator that gives ``snr``: the smallest over the outputs, in dB, against *model*."""
    session = open_model(model, optimize=True)
    names = [o.name for o in session.get_outputs()]
    wanted = [session.run(names, dict(feeds)) for feeds in data]

    def evaluate(other: ir.Model) -> dict[str, float]:
        run = open_model(other, optimize=True)
        signal, noise = np.zeros(len(names)), np.zeros(len(names))
        for feeds, reference in zip(data, wanted, strict=True):
            for i, (a, b) in enumerate(zip(reference, run.run(names, dict(feeds)), strict=True)):
                signal[i] += float(np.square(a, dtype=np.float64).sum())
                noise[i] += float(
                    np.square(a.astype(np.float64) - np.asarray(b, np.float64)).sum()
                )
        return {"snr": float(np.min(10 * np.log10(signal / np.maximum(noise, 1e-30))))}

    return evaluate


def candidates(model: ir.Model, scheme: Scheme) -> list[str]:
    """Names of the nodes that compute: those with multiply-adds that the scheme quantizes."""
    work = node_macs(model)
    nodes = [n for n in model.graph if is_quantized(n, scheme, frozenset())]
    return [n.name or "" for n in nodes if work[n.name or ""]]


def node_macs(model: ir.Model) -> dict[str, int]:
    """Multiply-adds of every node of the main graph, by name; shapes are inferred on a copy."""
    copy = model.clone()
    infer_shapes(copy)
    return {n.name or "": macs(n) for n in copy.graph}


def sensitivity(
    model: ir.Model, scheme: Scheme, quantize: Quantize, evaluate: Evaluator
) -> list[Sensitivity]:
    """Isolated and cumulative SNR of every computing node, worst isolated first."""
    names = candidates(model, scheme)
    work = node_macs(model)
    others = [n.name or "" for n in model.graph]
    found: list[Sensitivity] = []
    for index, name in enumerate(names):
        alone = evaluate(quantize(frozenset(others) - {name}))["snr"]
        upto = evaluate(quantize(frozenset(names[index + 1 :])))["snr"]
        found.append(Sensitivity(name, alone, upto, work[name]))
    return sorted(found, key=lambda s: (s.isolated, s.node))


def search(
    order: Sequence[str],
    work: Mapping[str, int],
    quantize: Quantize,
    evaluate: Evaluator,
    budget: Budget,
) -> Search:
    """Keep nodes in float in *order* (most sensitive first) until *budget* holds.

    Doubles the number until the budget holds, then halves the gap: few evaluations even for many
    nodes, and the fewest nodes when more float never hurts.
    """
    total = sum(work.values()) or 1
    steps: dict[int, Step] = {}

    def at(count: int) -> Step:
        if count not in steps:
            kept = tuple(order[:count])
            share = sum(work.get(n, 0) for n in kept) / total
            steps[count] = Step(kept, share, dict(evaluate(quantize(frozenset(kept)))))
        return steps[count]

    low, high = -1, 0
    while not budget.holds(at(high).metrics):
        if high == len(order):
            return Search(None, tuple(steps[c] for c in sorted(steps)))
        low, high = high, min(max(1, high * 2), len(order))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if budget.holds(at(middle).metrics) else (middle, high)
    return Search(at(high), tuple(steps[c] for c in sorted(steps)))


def pareto(steps: Sequence[Step], metric: str) -> list[Step]:
    """Steps that no other beats in both share of float work and *metric*, least float first."""
    best: list[Step] = []
    for step in sorted(steps, key=lambda s: (s.share, -s.metrics[metric])):
        if not best or step.metrics[metric] > best[-1].metrics[metric]:
            best.append(step)
    return best
