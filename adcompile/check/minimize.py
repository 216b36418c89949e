"""Make a failing graph small: delta debugging over its nodes.

Any subset of a graph's nodes is a graph of its own when the values it reads from the others are
fed with what they were in a run of the whole. So nodes can be left out in any combination, and the
classic halving search applies: drop half of the nodes, a quarter, … as long as the failure stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from adcompile.check.localize import declare
from adcompile.errors import AdcompileError, ModelError
from adcompile.interfaces import Array, Feeds
from adcompile.ir.evaluate import evaluate
from adcompile.ir.extract import extract
from adcompile.ir.graph import captured_values

Failing = Callable[[ir.Model, Feeds], bool]
MAX_TESTS = 400
KEEP_BYTES = 1 << 30  # of inner values, between tests


@dataclass(frozen=True)
class Minimal:
    """The smallest failing model that was found, its inputs, and how many candidates were tried."""

    model: ir.Model
    feeds: dict[str, Array]
    nodes: int
    tests: int


def minimize(
    model: ir.Model, feeds: Feeds, failing: Failing, *, max_tests: int = MAX_TESTS
) -> Minimal:
    """Leave out nodes of *model* as long as ``failing(candidate, its feeds)`` stays True.

    A candidate that cannot be cut out or raises one of our errors in *failing* counts as not
    failing. The result fails by itself; removing any single node of it does not (unless
    *max_tests* ran out). *model* is not changed. Raises ValueError when it does not fail at all.
    """
    search = _Search(model, feeds, failing, max_tests)
    nodes = list(model.graph)
    if search.test(nodes) is None:
        raise ValueError("the model does not fail on these inputs")
    nodes = search.reduce(nodes)
    best = search.best
    assert best is not None
    return Minimal(best[0], best[1], len(nodes), search.tests)


@dataclass
class _Search:
    model: ir.Model
    feeds: Feeds
    failing: Failing
    max_tests: int
    tests: int = 0
    best: tuple[ir.Model, dict[str, Array]] | None = None
    _values: dict[str, Array] = field(default_factory=dict[str, Array])

    def reduce(self, nodes: list[ir.Node]) -> list[ir.Node]:
        """Delta debugging: chunks of falling size are left out while the rest still fails."""
        chunks = 2
        while len(nodes) > 1 and self.tests < self.max_tests:
            size = -(-len(nodes) // chunks)
            for start in range(0, len(nodes), size):
                rest = nodes[:start] + nodes[start + size :]
                if rest and self.test(rest) is not None:
                    nodes = rest
                    chunks = max(chunks - 1, 2)
                    break
            else:
                if size == 1:
                    break
                chunks = min(chunks * 2, len(nodes))
        return nodes

    def test(self, nodes: Sequence[ir.Node]) -> bool | None:
        """True, and remembered as the best, when the subset fails; else None."""
        if self.tests >= self.max_tests:
            return None
        self.tests += 1
        try:
            candidate, feeds = self._cut(nodes)
            if not self.failing(candidate, feeds):
                return None
        except AdcompileError:
            return None
        self.best = (candidate, feeds)
        return True

    def _cut(self, nodes: Sequence[ir.Node]) -> tuple[ir.Model, dict[str, Array]]:
        """The nodes as a model. What others made is an input, what others read is an output."""
        chosen = set(nodes)
        made = [value for node in nodes for value in node.outputs if value.name]
        inside = set(made)
        reads: dict[ir.Value, None] = {}
        for node in nodes:
            for value in (*node.inputs, *captured_values(node)):
                if value is not None and value not in inside and not _is_weight(value):
                    reads[value] = None
        outputs = [v for v in made if v.is_graph_output() or _read_outside(v, chosen)]
        outputs = outputs or made[-1:]
        names = [value.name or "" for value in reads]
        self._learn(names)
        for value in reads:
            declare(value, self._values[value.name or ""])
        model = extract(self.model, nodes, list(reads), outputs, self.model.graph.name or "graph")
        return model, {name: self._values[name] for name in names}

    def _learn(self, names: Sequence[str]) -> None:
        """Know what *names* were in a run of the whole model."""
        self._values.update((n, self.feeds[n]) for n in names if n in self.feeds)
        missing = [name for name in names if name not in self._values]
        if not missing:
            return
        if sum(array.nbytes for array in self._values.values()) > KEEP_BYTES:
            self._values = {n: self._values[n] for n in names if n in self._values}
        found = evaluate(self.model, self.feeds, missing)
        if not all(isinstance(value, np.ndarray) for value in found.values()):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ModelError("a sequence or map cannot be the input of a cut-out graph")
        self._values.update(found)


def _is_weight(value: ir.Value) -> bool:
    return value.is_initializer() and value.const_value is not None and not value.is_graph_input()


def _read_outside(value: ir.Value, chosen: set[ir.Node]) -> bool:
    return not value.uses() or any(use.node not in chosen for use in value.uses())
