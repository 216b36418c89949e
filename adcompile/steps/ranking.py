"""What to promote first: how sensitive every node is, and what is gained by leaving it in float.

All of it is measured on drafts (one calibration per part, any nodes in float) by the error power at the
part's outputs, on a few samples. It decides only in which order the search tries; what a try gives is
measured in the form that the bundle runs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from adcompile.backend_options import float_nodes
from adcompile.check.score import few
from adcompile.interfaces import Drafting, LowerContext, Part, Report, Trial
from adcompile.job import Job
from adcompile.lower.order import Pick, best_order
from adcompile.lower.resume import Resume
from adcompile.lower.search import Noise, all_nodes, node_macs, sensitivity
from adcompile.lower.violations import is_qdq
from adcompile.steps.lowering import context
from adcompile.steps.search_record import NodeScore, PickScore

SAMPLES = 4  # that errors are compared on
AGAIN = 32  # measurements of sets beside others that were picked, per part


@dataclass
class Ranking:
    """What was found out about one part."""

    part: Part
    trial: Trial
    nodes: list[NodeScore]
    picks: list[Pick]


def rank(job: Job, part: Part) -> Ranking:
    """Measure the nodes of *part*, and in which order they are best left in float."""
    trial = trial_of(job, part)
    data = few(job.calibration[part.name], SAMPLES)
    noise = Noise(part.model, data)
    floats = Resume(trial.without(all_nodes(part.model, trial)), data)
    whole = Resume(trial.without(frozenset()), data)

    def alone(variant: ir.Model) -> float:
        return noise.of_results(floats(variant))

    def upto(variant: ir.Model) -> float:
        return noise.of_results(whole(variant))

    def watch(what: str) -> Callable[[int, int], None]:
        return lambda done, most: job.watch(f"search: {what} {part.name} ({done + 1} of {most})")

    rows = sensitivity(part.model, trial, alone, upto, watch("nodes of"))
    macs = node_macs(part.model)
    nodes = [
        NodeScore(
            part=part.name,
            node=s.node,
            isolated=round(s.isolated, 2),
            cumulative=round(s.cumulative, 2),
            macs=macs.get(s.node, 0),
        )
        for s in rows
    ]
    sets = trial.sets or tuple((name,) for name in trial.nodes)
    picks = best_order(
        sets,
        lambda names: upto(trial.without(names)),
        1 + len(sets) + AGAIN,
        watch("what to leave in float in"),
    )
    return Ranking(part, trial, nodes, picks)


def trial_of(job: Job, part: Part) -> Trial:
    """The backend's draft of a part, or the part lowered anew for every choice."""
    backend, ctx = job.backend, context(job, part)
    fixed = float_nodes(ctx.options)
    found = backend.draft(part, ctx) if isinstance(backend, Drafting) else None
    if found is None:
        found = _whole(job, part, ctx)
    sets = [tuple(name for name in names if name not in fixed) for names in found.sets]
    return Trial(
        tuple(name for name in found.nodes if name not in fixed),
        lambda floats: found.without(floats | fixed),
        tuple(dict.fromkeys(names for names in sets if names)),
    )


def _whole(job: Job, part: Part, ctx: LowerContext) -> Trial:
    """For a backend without drafts; parts of regions keep their own inputs and outputs."""

    def lowered(floats: frozenset[str]) -> ir.Model:
        options = {**ctx.options, "float_nodes": "\n".join(sorted(floats)), "roi_policy": "loop"}
        report = Report(allowed=job.report.allowed)
        return job.backend.lower(part, replace(ctx, options=options, report=report)).model

    rounded = _rounded(lowered(float_nodes(ctx.options)))
    # a backend that marks nothing with Q/DQ: what computes is what there is to choose from
    found = rounded or {name for name, count in node_macs(part.model).items() if count}
    return Trial(tuple(n.name or "" for n in part.model.graph if n.name in found), lowered)


def _rounded(model: ir.Model) -> set[str]:
    """Names of the nodes of a lowered model with Q/DQ at an input or output."""
    return {
        node.name or ""
        for node in model.graph
        if any(v is not None and is_qdq(v.producer()) for v in node.inputs)
        or any(is_qdq(use.node) for v in node.outputs for use in v.uses())
    }


def merged(rankings: Sequence[Ranking], harm: Mapping[str, float]) -> list[PickScore]:
    """The picks of all parts as one order: each part keeps its own, and what is estimated to take away
    most of the model's loss per node comes first. *harm* is what each part alone costs."""
    heap: list[tuple[float, int, int]] = []
    shares: list[list[float]] = []
    whole = sum(harm[ranking.part.name] for ranking in rankings) or 1.0
    for ranking in rankings:
        total = sum(max(pick.gain, 0.0) for pick in ranking.picks) or 1.0
        cost = harm[ranking.part.name] / whole
        shares.append([cost * pick.gain / total for pick in ranking.picks])
    found: list[PickScore] = []

    def push(number: int, place: int) -> None:
        if place < len(shares[number]):
            density = shares[number][place] / len(rankings[number].picks[place].nodes)
            heapq.heappush(heap, (-density, number, place))

    for number in range(len(rankings)):
        push(number, 0)
    while heap:
        _, number, place = heapq.heappop(heap)
        ranking = rankings[number]
        nodes = list(ranking.picks[place].nodes)
        share = round(shares[number][place], 6)
        found.append(PickScore(part=ranking.part.name, nodes=nodes, share=share))
        push(number, place + 1)
    return found
