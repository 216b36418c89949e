"""Rewrites that change the function: only those allowed by name, each with its measured error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from adcompile.check.golden import GoldenInput
from adcompile.errors import UsageError
from adcompile.interfaces import Exactness, Pass
from adcompile.ir.evaluate import evaluate
from adcompile.job import Job
from adcompile.manifest import RewriteRecord
from adcompile.passes.check_weights import ALLOWED as NAN_WEIGHTS
from adcompile.rewrite.pipeline import Pipeline, known_passes, rules_of
from adcompile.steps.inputs import golden_inputs


def approximate(job: Job) -> Pipeline:
    """Run what the user allowed; returns the pipeline that ran (empty when nothing was allowed).

    Every applied rewrite gets the largest absolute difference it makes at its own output on the
    golden inputs. Raises UsageError for a name that is no approximate pass or rule.
    """
    pipeline = Pipeline(_allowed(job))
    if not pipeline.passes:
        return pipeline
    job.watch("approximate")
    before = job.ir.clone()
    made = {node.name: node.outputs[0].name for node in before.graph}
    start = len(job.report.rewrites)
    pipeline.run(job.ir, job.report)
    records = job.report.rewrites[start:]
    touched = {r.node: made.get(r.node) for r in records if r.exactness == "approximate"}
    errors = _errors(before, job.ir, [n for n in touched.values() if n], golden_inputs(job))
    job.report.rewrites[start:] = [_with_error(r, touched, errors) for r in records]
    for record in job.report.rewrites[start:]:
        if record.exactness == "approximate":
            job.report.note(
                f"{record.rule} at {record.node!r} changes the function: largest difference "
                + (f"{record.error:.4g}" if record.error is not None else "not measured")
            )
    return pipeline


def _allowed(job: Job) -> tuple[Pass, ...]:
    """The passes that hold what was allowed, in the order of the pass table."""
    wanted = set(job.report.allowed) - {NAN_WEIGHTS}
    found: list[Pass] = []
    known: list[str] = []
    for name, kind in known_passes().items():
        rules = [r.name for r in rules_of(kind) if r.exactness is Exactness.APPROXIMATE]
        names = {name, *rules} if kind.exactness is Exactness.APPROXIMATE else set(rules)
        known += sorted(names)
        if names & wanted:
            found.append(kind())
            wanted -= names
    if wanted:
        raise UsageError(
            f"nothing approximate is called {sorted(wanted)[0]!r}",
            fix="can be allowed: " + ", ".join(dict.fromkeys(known)),
        )
    return tuple(found)


def _errors(
    before: ir.Model, after: ir.Model, names: Sequence[str], inputs: Sequence[GoldenInput]
) -> dict[str, float]:
    """Largest absolute difference of each named value, over all *inputs*."""
    kept = {value.name for node in after.graph for value in node.outputs}
    both = [name for name in dict.fromkeys(names) if name in kept]
    worst: dict[str, float] = {}
    if not both:
        return worst
    for each in inputs:
        old = evaluate(before, each.feeds, both)
        new = evaluate(after, each.feeds, both)
        for name in both:
            a = np.asarray(old[name], dtype=np.float64)
            b = np.asarray(new[name], dtype=np.float64)
            if a.shape == b.shape and a.size:
                worst[name] = max(worst.get(name, 0.0), float(np.abs(a - b).max()))
    return worst


def _with_error(
    record: RewriteRecord, touched: dict[str, str | None], errors: dict[str, float]
) -> RewriteRecord:
    value = touched.get(record.node)
    if record.exactness != "approximate" or value is None or value not in errors:
        return record
    return record.model_copy(update={"error": float(f"{errors[value]:.6g}")})
