"""An accuracy budget: what to promote so that the quantized model is good enough, and no more.

First every part by itself and all up to it (isolated and cumulative), then every node, then the
search: the fewest nodes in float (they run on the CPU), or whole parts in a higher precision of the
target, whichever promotes fewer nodes. Every try is measured in the form that the bundle runs, an
anomaly detector with constants of its own. Of several bounds the first is searched for. The outcome
goes into the plan, the story into ``search.json``, and the finished bundle is measured once more: on
the device where there is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from adcompile.anomaly.accuracy import METRICS
from adcompile.backend_options import float_nodes
from adcompile.check.score import (
    SNR,
    DetectionScorer,
    Metrics,
    SnrScorer,
    image_input,
    with_losses,
)
from adcompile.detection.fixed import FixedSize
from adcompile.errors import BudgetMissed, UsageError
from adcompile.interfaces import Part
from adcompile.ir.emit import model_digest
from adcompile.job import Job
from adcompile.lower.search import Budget, decibels, parse_budget, parse_budgets
from adcompile.place.schema import PartPlan
from adcompile.runtime.bundle import Bundle, load
from adcompile.steps.identity import digest_of
from adcompile.steps.judging import asks_accuracy
from adcompile.steps.lowering import context
from adcompile.steps.search_record import SEARCH, SearchRecord, StepScore
from adcompile.steps.searching import Searcher, quantized_parts, scorer_of
from adcompile.steps.tools import tool_versions
from adcompile.version import code_version


def meet_budget(job: Job) -> None:
    """Run the search that ``--budget`` asks for and write its outcome into the plan.

    Raises UsageError for a budget that cannot be measured, BudgetMissed when nothing holds it.
    """
    if job.options.budget is None:
        return
    budget, *others = asks_accuracy(job) or parse_budgets(job.options.budget)
    if others and budget.metric not in METRICS:
        raise UsageError(
            f"{len(others) + 1} bounds at once", why=f"{budget.metric} is bounded alone"
        )
    if not quantized_parts(job):
        job.report.note(f"no part is quantized: the budget {budget} needs no search")
        return
    record = _kept(job, budget)
    job.files.add(SEARCH, record.model_dump_json(indent=1) + "\n")
    if record.chosen is None:
        float_model = f"float: {_shown(record.reference) or 'exact'}"
        raise BudgetMissed(
            f"the budget {budget} cannot be met",
            record.model_dump(mode="json"),
            why="; ".join(filter(None, (_best(record), float_model, record.doubt))),
            fix="choose a lower bound, another precision, or more calibration data",
        )
    if record.doubt:
        job.report.note(f"budget {budget}: {record.doubt}")
    _apply(job, record.chosen)
    job.search = record.model_dump(mode="json")


def _best(record: SearchRecord) -> str:
    """The best that was found, and what it costs."""
    best = record.pareto[-1]
    raised = [f"{part} in {precision}" for part, precision in best.precisions.items()]
    choices = sum(len(pick.nodes) for pick in record.order)
    what = ", ".join(raised) or f"{len(best.floats)} of {choices} nodes in float"
    cost = f"{what}: {100.0 * best.share:.1f} % of the multiply-adds"
    return f"best found in {len(record.steps)} tries: {_shown(best.metrics)} with {cost}"


def _kept(job: Job, budget: Budget) -> SearchRecord:
    """The search's result: from the cache, or searched now."""
    options = job.options
    fields = {
        "parts": json.dumps([_identity(job, part) for part in job.parts]),
        "target": f"{job.target.name} {job.target.toolchain}",
        "budget": str(budget),
        "tries": str(options.budget_tries),
        "data": digest_of([options.data] if options.data else []),
        "val": digest_of([options.val] if options.val else []),
        "coco": digest_of([options.coco] if options.coco else []),
        "images": digest_of([options.coco_images] if options.coco_images else []),
        "eval_samples": str(options.eval_samples),
        "contract": job.contract.dump(),
        "calibration": job.calibration_id,
        "adcompile": code_version(),
        "tools": json.dumps(tool_versions()),
    }
    made: list[SearchRecord] = []

    def produce(folder: Path) -> None:
        made.append(Searcher(job, budget).run())
        (folder / SEARCH).write_text(made[0].model_dump_json(), encoding="utf-8")

    entry = job.cache.step("search", fields, produce)
    if made:
        return made[0]
    if entry is None:
        return Searcher(job, budget).run()
    return SearchRecord.model_validate_json((entry / SEARCH).read_text(encoding="utf-8"))


def _identity(job: Job, part: Part) -> list[object]:
    """What a part contributes to the search: its model, and how it is to run."""
    options = sorted(context(job, part).options.items())
    return [part.name, part.precision, model_digest(part.model), options]


def _apply(job: Job, chosen: StepScore) -> None:
    """Write the outcome into the plan and the parts."""
    updated: list[PartPlan] = []
    for planned in job.plan.parts:
        own = set(planned.nodes) & set(chosen.floats)
        change: dict[str, object] = {}
        if own:
            own |= float_nodes({**job.options.backend_options, **planned.options})
            change["options"] = {**planned.options, "float_nodes": "\n".join(sorted(own))}
        if planned.name in chosen.precisions:
            change["precision"] = chosen.precisions[planned.name]
        updated.append(planned.model_copy(update=change) if change else planned)
    job.plan = job.plan.model_copy(update={"parts": tuple(updated)})
    known = {planned.name: planned for planned in updated}
    for index, part in enumerate(job.parts):
        if (settled := known.get(part.name)) is not None:
            job.parts[index] = replace(
                part, precision=settled.precision, options=dict(settled.options)
            )


def _shown(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def check_budget(job: Job) -> None:
    """Measure the finished bundle, simulated where there is no device, and hold it to the budget."""
    if job.options.budget is None or not job.search or asks_accuracy(job):
        return  # an anomaly detector's accuracy is checked by verify
    job.watch("measure the bundle")
    budget = parse_budget(job.options.budget)
    with load(job.staged, check=False) as bundle:
        metrics = _measured(job, budget, bundle)
    held = budget.holds(metrics)
    results: dict[str, float | str] = {f"budget {n}": round(v, 5) for n, v in metrics.items()}
    results |= {} if held else {"ok": "no"}
    results |= {"budget wanted": str(budget), "budget held": "yes" if held else "no"}
    job.manifest = job.manifest.model_copy(update={"results": {**job.manifest.results, **results}})
    if not held:
        job.ok = False
        job.report.note(
            f"the finished bundle does not hold the budget {budget}: {_shown(metrics)}"
        )


def _measured(job: Job, budget: Budget, bundle: Bundle) -> Metrics:
    scorer = scorer_of(job, budget)
    record = SearchRecord.model_validate(job.search)
    if isinstance(scorer, DetectionScorer):
        name, spec = image_input(job.contract, bundle.inputs)
        run = FixedSize(lambda tensor: bundle.run({name: tensor}).outputs, spec)
        return with_losses(scorer.metrics_of(run), record.reference)
    assert isinstance(scorer, SnrScorer)
    records = {part.name: part for part in bundle.manifest.parts}
    searched = {row.part for row in record.parts}  # also those that are in a float precision now
    pairs = [(part, records[part.name]) for part in job.parts if part.name in searched]
    return {SNR: decibels(max(scorer.of(p, r, bundle.executor(r)) for p, r in pairs))}
