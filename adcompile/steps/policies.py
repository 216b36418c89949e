"""How parts that run once per region meet a device of fixed shapes, chosen from recorded counts.

A part whose plan says ``auto`` gets the cheapest of ``mosaic``, ``bucket``, ``loop`` and ``host``; one
that says ``bucket`` without sizes gets the sizes that waste least. The outcome stands in the plan, so
that it can be read, edited and given back with ``--plan``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from adcompile.errors import Unsupported
from adcompile.interfaces import Part
from adcompile.job import Job
from adcompile.lower.mosaic import mosaic
from adcompile.lower.rows import PolicyCost, bucket_sizes, policy_costs
from adcompile.place.cost import NOMINAL_ROWS, nbytes, work
from adcompile.place.schema import PartPlan, PolicyPlan
from adcompile.runtime.tiles import Mosaic


def choose_policies(job: Job) -> None:
    """Settle the policy of every region part, in the plan and in ``job.parts``."""
    for index, part in enumerate(job.parts):
        if not part.rows or part.placement != "device":
            continue
        planned = job.plan.part(part.name)
        settled = _settle(job, part, planned)
        if settled is planned:
            continue
        parts = tuple(settled if p.name == part.name else p for p in job.plan.parts)
        job.plan = job.plan.model_copy(update={"parts": parts})
        job.parts[index] = replace(
            part,
            placement=settled.placement,
            precision=settled.precision,
            options=dict(settled.options),
        )


def _settle(job: Job, part: Part, planned: PartPlan) -> PartPlan:
    policy = planned.options.get("roi_policy", "")
    counts = job.row_counts.get(part.name, [])
    if policy in ("mosaic", "bucket") and job.options.plan is None:
        try:
            mosaic(part.model, (1, 1))
        except Unsupported as error:
            why = " ".join(str(error).split())
            job.report.note(f"{part.name}: roi_policy loop instead of {policy}: {why}")
            return planned.model_copy(update={"options": {"roi_policy": "loop"}})
    if policy == "bucket" and any(counts) and not _sizes_given(job):
        sizes = ",".join(map(str, bucket_sizes(counts)))
        return planned.model_copy(update={"options": {**planned.options, "roi_buckets": sizes}})
    if policy != "auto":
        return planned
    costs, why = costs_of(part, counts)
    best = costs[0]
    seen = f"{min(counts)} to {max(counts)} regions an image" if counts else "unknown counts"
    others = ", ".join(f"{c.policy} {c.us:,.0f}" for c in costs[1:])
    job.report.note(
        f"{part.name}: roi_policy {best.policy}, about {best.us:,.0f} us an image against {others} "
        f"({seen}{f'; no mosaic: {why}' if why else ''}); -O roi_policy or the plan overrides"
    )
    options = {**planned.options, "roi_policy": best.policy}
    if best.policy in ("mosaic", "bucket"):
        name = "roi_buckets" if best.policy == "bucket" else "roi_capacity"
        options[name] = ",".join(map(str, best.sizes))
    update: dict[str, object] = {
        "options": options,
        "policies": tuple(PolicyPlan(**asdict(cost)) for cost in costs),
    }
    if best.policy == "host":
        update |= {"placement": "host", "precision": "fp32"}
    return planned.model_copy(update=update)


def _sizes_given(job: Job) -> bool:
    return "roi_buckets" in job.options.backend_options or job.options.plan is not None


def costs_of(part: Part, counts: Sequence[int]) -> tuple[list[PolicyCost], str]:
    """What every policy that *part* can have would cost over images with *counts* regions, cheapest
    first; and why it has no mosaic form, if it has none."""
    row_macs = sum(work(node, rows=1) for node in part.model.graph)
    row_bytes = sum(
        nbytes(v, rows=1) for v in (*part.model.graph.inputs, *part.model.graph.outputs)
    )
    try:
        _, layout = mosaic(part.model, (1, 1))
        share, why = _tile_share(layout), ""
    except Unsupported as error:
        share, why = 0.0, " ".join(str(error).split())
    costs = policy_costs(counts or [NOMINAL_ROWS], row_macs, row_bytes, tile_share=share)
    return costs, why


def _tile_share(layout: Mosaic) -> float:
    """The part of the input images that is not gutter."""
    tiles = sum(s.height * s.width for s in layout.inputs.values())
    return tiles / sum(s.pitch_y * s.pitch_x for s in layout.inputs.values())
