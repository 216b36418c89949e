"""Find the pass that broke a model, and the smallest graph that shows it.

    culprit = bisect_passes(model, pipelines, feeds, judge)
    if culprit is not None:
        small = shrink(culprit, feeds, judge)

The pipelines run again and again on a copy, each time up to another change, halving the distance
between the last good and the first bad one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from adcompile.check.compare import Comparison, compare
from adcompile.check.minimize import Minimal, minimize
from adcompile.check.tolerance import Tolerances
from adcompile.errors import AdcompileError
from adcompile.interfaces import Array, Feeds, Pass, Report
from adcompile.ir.evaluate import evaluate
from adcompile.rewrite.options import print_pass
from adcompile.rewrite.pipeline import Pipeline

Judge = Callable[[Feeds, Feeds], list[Comparison]]  # (reference outputs, actual) -> comparisons


@dataclass(frozen=True)
class Culprit:
    """The first pass after which results were wrong, and the models around it."""

    text: str  # the pass with its options, as the pipeline prints it
    change: int  # how many changes were made before it
    before: ir.Model
    comparisons: tuple[Comparison, ...]
    error: str = ""  # when the changed model could not be run at all


class _Enough(Exception):
    """The run has made as many changes as it was asked for."""


@dataclass
class _Counter:
    """Instrument: counts passes that changed the model, keeps a copy before one of them, stops."""

    limit: int
    count: int = 0
    text: str = ""
    before_last: ir.Model | None = None
    _before: ir.Model | None = None

    def before(self, each: Pass, model: ir.Model) -> None:
        """Only the run that is asked for its last change needs copies."""
        self._before = model.clone() if self.limit > 0 and self.count == self.limit - 1 else None

    def after(self, each: Pass, model: ir.Model, changed: bool, seconds: float) -> None:
        """Count; stop the run at the limit."""
        if not changed:
            return
        self.count += 1
        if self.count == self.limit:
            self.text = print_pass(each)
            self.before_last = self._before
            raise _Enough


def bisect_passes(
    model: ir.Model,
    pipelines: Sequence[Pipeline],
    feeds: Feeds,
    judge: Judge,
    *,
    allowed: frozenset[str] = frozenset(),
) -> Culprit | None:
    """The first change of *pipelines* after which *judge* rejects the results; None when none is.

    *model* is not changed; its own results are the reference.
    """
    search = _Prefixes(model, pipelines, feeds, judge, allowed)
    total = search.changes()
    if search.good(total):
        return None
    low, high = 0, total  # good at low, bad at high
    while high - low > 1:
        middle = (low + high) // 2
        if search.good(middle):
            low = middle
        else:
            high = middle
    return search.culprit(high)


class _Prefixes:
    def __init__(
        self,
        model: ir.Model,
        pipelines: Sequence[Pipeline],
        feeds: Feeds,
        judge: Judge,
        allowed: frozenset[str],
    ) -> None:
        self._model = model
        self._pipelines = pipelines
        self._feeds = feeds
        self._judge = judge
        self._allowed = allowed
        self._reference = _run(model, feeds)

    def changes(self) -> int:
        """How many passes change the model in a whole run."""
        return self._prefix(0)[1].count

    def _prefix(self, limit: int) -> tuple[ir.Model, _Counter]:
        """The model after *limit* changes; 0 means the whole run."""
        work = self._model.clone()
        counter = _Counter(limit)
        report = Report(allowed=self._allowed)
        try:
            for pipeline in self._pipelines:
                pipeline.run(work, report, [counter])
        except _Enough:
            pass
        return work, counter

    def good(self, changes: int) -> bool:
        """True when the results after that many changes are still right."""
        work = self._prefix(changes)[0] if changes else self._model
        return self._failure(work) is None

    def _failure(self, work: ir.Model) -> tuple[tuple[Comparison, ...], str] | None:
        try:
            results = self._judge(self._reference, _run(work, self._feeds))
        except AdcompileError as error:
            return (), str(error)
        return None if all(c.ok for c in results) else (tuple(results), "")

    def culprit(self, change: int) -> Culprit:
        """What the change of that number was."""
        work, counter = self._prefix(change)
        comparisons, error = self._failure(work) or ((), "")
        assert counter.before_last is not None
        return Culprit(counter.text, change - 1, counter.before_last, comparisons, error)


def _run(model: ir.Model, feeds: Feeds) -> dict[str, Array]:
    wanted = {value.name for value in model.graph.inputs}
    return evaluate(model, {n: a for n, a in feeds.items() if n in wanted})


def shrink(culprit: Culprit, feeds: Feeds, *, tolerances: Tolerances | None = None) -> Minimal:
    """The smallest part of the model before the culprit on which the pass still does harm."""
    each = Pipeline.parse(culprit.text)
    bounds = tolerances or Tolerances.of({})

    def failing(candidate: ir.Model, given: Feeds) -> bool:
        expected = _run(candidate, given)
        changed = candidate.clone()
        if not each.run(changed, Report(allowed=frozenset(each.names()))):
            return False
        try:
            found = _run(changed, given)
        except AdcompileError:
            return True
        return not all(c.ok for c in compare(expected, found, {}, bounds))

    return minimize(culprit.before, feeds, failing)
