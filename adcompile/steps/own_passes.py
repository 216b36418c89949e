"""Passes that the user brought: run one by one, and held to what they say about the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from adcompile.check.compare import compare
from adcompile.check.diagnose import in_words
from adcompile.check.tolerance import Tolerances
from adcompile.errors import PassError
from adcompile.interfaces import Exactness, Pass
from adcompile.ir.evaluate import evaluate
from adcompile.job import Job
from adcompile.rewrite.pipeline import Pipeline
from adcompile.steps.inputs import golden_inputs, wants_golden


def own_pipeline(items: Sequence[str | Pass]) -> Pipeline:
    """Passes given as values, names with options, or ``file.py:Class``."""
    parts = [Pipeline((p,)) if isinstance(p, Pass) else Pipeline.parse(p) for p in items]
    return sum(parts, Pipeline(()))


def run_own(job: Job) -> None:
    """Run the user's passes; one that says it is exact and is not raises PassError.

    The model is executed before and after such a pass, on the first input that golden data is
    recorded from. Without such an input (nothing is verified either) nothing is executed.
    """
    pipeline = own_pipeline(job.options.passes)
    if not pipeline.passes:
        return
    job.watch("own passes")
    for each in pipeline.passes:
        known = len(job.report.rewrites)
        before = job.ir.clone() if _says_exact(each) and wants_golden(job) else None
        changed = Pipeline((each,)).run(job.ir, job.report)
        said = {record.exactness for record in job.report.rewrites[known:]}
        if changed and before is not None and said <= {Exactness.EXACT.value}:
            _check(job, Pipeline((each,)), before)
    job.pipeline.append(f"own passes: {pipeline}")


def _check(job: Job, ran: Pipeline, before: ir.Model) -> None:
    """Compare the outputs that are left; a pass may take one away."""
    feeds = golden_inputs(job)[0].feeds
    expected, found = evaluate(before, feeds), evaluate(job.ir, feeds)
    left = {name: array for name, array in expected.items() if name in found}
    results = compare(left, found, job.contract.roles, Tolerances.of({}))
    wrong = [in_words(result) for result in results if not result.ok]
    if wrong:
        raise PassError(
            f"pass {ran} changes what the model computes",
            where=job.ir.graph.name or "model",
            why="; ".join(wrong),
            fix="mend it, or declare exactness = Exactness.APPROXIMATE and --allow it",
        )


def _says_exact(each: object) -> bool:
    return getattr(each, "exactness", Exactness.EXACT) is Exactness.EXACT
