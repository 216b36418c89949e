"""Instruments: watch a pipeline run. Time, dumps, checks after each pass, hit counts, errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from adcompile.errors import PassError
from adcompile.interfaces import Array, Exactness, Feeds, Pass, Report
from adcompile.ir.dump import dump
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import count_nodes
from adcompile.ir.shapes import light_proto


@dataclass
class Timing:
    """Seconds, runs and node counts per pass, in order of first run."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])
    runs: Counter[str] = field(default_factory=Counter[str])
    nodes: dict[str, int] = field(default_factory=dict[str, int])

    def before(self, each: Pass, model: ir.Model) -> None:
        """Note the pass, so that the order is kept."""
        self.seconds.setdefault(each.name, 0.0)

    def after(self, each: Pass, model: ir.Model, changed: bool, seconds: float) -> None:
        """Add up."""
        self.seconds[each.name] += seconds
        self.runs[each.name] += 1
        self.nodes[each.name] = count_nodes(model)[1]


@dataclass
class Dump:
    """Hands the text of the model to *write* around the passes called *names*."""

    write: Callable[[str, str], None]  # (title, text)
    ahead: Sequence[str] = ()
    behind: Sequence[str] = ()

    def before(self, each: Pass, model: ir.Model) -> None:
        """Dump when the pass is listed in ``ahead``."""
        if each.name in self.ahead:
            self.write(f"before {each.name}", dump(model))

    def after(self, each: Pass, model: ir.Model, changed: bool, seconds: float) -> None:
        """Dump when the pass is listed in ``behind``."""
        if each.name in self.behind:
            self.write(f"after {each.name}", dump(model))


@dataclass
class Verify:
    """After each pass: is the model valid, did it say truly whether it changed something, and,
    with *feeds*, does it still compute the same (exact passes only)?

    A fault is a PassError that names the pass. Slow; for tests, bisection and ``--verify-passes``.
    """

    feeds: Sequence[Feeds] = ()
    rtol: float = 1e-3
    atol: float = 1e-5
    _reference: list[dict[str, Array]] = field(default_factory=list[dict[str, Array]])
    _text: str = ""

    def before(self, each: Pass, model: ir.Model) -> None:
        """Keep the reference results of the very first model, and the text before each pass."""
        self._text = dump(model)
        if self.feeds and not self._reference:
            self._reference = [evaluate(model, _fed(model, feeds)) for feeds in self.feeds]

    def after(self, each: Pass, model: ir.Model, changed: bool, seconds: float) -> None:
        """Check everything that can be checked."""
        if not changed and dump(model) != self._text:
            raise PassError(f"pass {each.name} changed the model but says it did not")
        check_model(model, each.name)
        if each.exactness is not Exactness.EXACT:
            self._reference = []
        for feeds, expected in zip(self.feeds, self._reference, strict=False):
            found = evaluate(model, _fed(model, feeds))
            for name, array in expected.items():
                why = difference(array, found.get(name), self.rtol, self.atol)
                if why:
                    raise PassError(f"pass {each.name} changed the result {name!r}", why=why)


def _fed(model: ir.Model, feeds: Feeds) -> dict[str, Array]:
    wanted = {value.name for value in model.graph.inputs}
    return {name: array for name, array in feeds.items() if name in wanted}


def difference(a: Array, b: Array | None, rtol: float, atol: float) -> str:
    """Why two arrays differ beyond the tolerance; "" when they do not."""
    if b is None:
        return "it is missing"
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype}{list(a.shape)} became {b.dtype}{list(b.shape)}"
    if a.dtype.kind not in "fc":
        return "" if np.array_equal(a, b) else "values differ"
    x, y = (
        np.asarray(z, dtype=np.complex128 if z.dtype.kind == "c" else np.float64) for z in (a, b)
    )
    if np.allclose(x, y, rtol=rtol, atol=atol, equal_nan=True):
        return ""
    return f"values differ by up to {float(np.nanmax(np.abs(x - y))):.3g}"


def check_model(model: ir.Model, culprit: str) -> None:
    """ONNX's checker and our own: unique names, no value that nothing makes, and none whose readers
    are nodes that were taken out (it would never be dead)."""
    try:
        onnx.checker.check_model(light_proto(model))  # pyright: ignore[reportUnknownMemberType]
    except (onnx.checker.ValidationError, ValueError) as error:
        raise PassError(
            f"pass {culprit} left an invalid model", why=str(error).strip().splitlines()[0]
        ) from error
    seen: set[str] = set()
    nodes = {node for graph in model.graphs() for node in graph}
    for graph in model.graphs():
        for value in (*graph.inputs, *graph.initializers.values()):
            _claim(value, seen, culprit)
        for node in graph:
            for value in node.outputs:
                if value.name:
                    _claim(value, seen, culprit)
                _check_readers(value, nodes, culprit)
        for value in graph.outputs:
            if value.graph is not graph:
                raise PassError(f"pass {culprit}: output {value.name!r} is of another graph")


def _claim(value: ir.Value, seen: set[str], culprit: str) -> None:
    name = value.name or ""
    if value.is_graph_input() and value.is_initializer():
        seen.discard(name)
    if not name or name in seen:
        raise PassError(f"pass {culprit} left two values called {name!r}")
    seen.add(name)


def _check_readers(value: ir.Value, nodes: AbstractSet[ir.Node], culprit: str) -> None:
    gone = [node for node in value.consumers() if node not in nodes]
    if gone:
        raise PassError(
            f"pass {culprit} left a reader of {value.name!r} behind",
            why=f"{gone[0].op_type} {gone[0].name!r} is in no graph of the model",
        )


@dataclass
class Hits:
    """How often each rule applied; read from the report."""

    report: Report

    def counts(self) -> dict[str, int]:
        """Rule to number of applications, most frequent first."""
        found = Counter(record.rule for record in self.report.rewrites)
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
