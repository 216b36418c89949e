"""Steps 6 and 7: a verdict for every node, and parts cut from the graph by the plan."""

from __future__ import annotations

from adcompile.errors import Unsupported, UsageError
from adcompile.job import Job
from adcompile.place.apply import apply_plan
from adcompile.place.planner import make_plan
from adcompile.place.schema import MAX_PLAN_BYTES, Plan, Settings, parse_plan

ROI_POLICY = "roi_policy"


def place_and_partition(job: Job) -> None:
    """Make the plan, or take the user's, and cut the model by it."""
    job.watch("place and partition")
    job.plan = _given(job) if job.options.plan else _made(job)
    for note in job.plan.notes:
        job.report.note(note)
    if job.options.strict:
        _insist(job.plan)
    job.parts = apply_plan(job.ir, job.plan)


def _made(job: Job) -> Plan:
    pins = job.options.pins
    settings = Settings.model_validate(
        {
            "device": tuple(n for n, where in pins.items() if where == "device"),
            "host": tuple(n for n, where in pins.items() if where == "host"),
            ROI_POLICY: job.options.backend_options.get(ROI_POLICY, ""),
        }
    )
    return make_plan(
        job.ir, job.target, job.backend.supports, precision=job.precision, options=settings
    )


def _given(job: Job) -> Plan:
    path = job.options.plan
    assert path is not None
    if job.options.pins:
        raise UsageError("--plan and --pin together", fix="edit the plan, or leave it out")
    if not path.is_file():
        raise UsageError("no such plan", where=str(path))
    if path.stat().st_size > MAX_PLAN_BYTES:
        raise UsageError("plan is too large", where=str(path))
    plan = parse_plan(path.read_text(encoding="utf-8", errors="replace"), str(path))
    if plan.target != job.target.name:
        raise UsageError(
            f"the plan is for {plan.target}",
            where=str(path),
            why=f"building for {job.target.name}",
        )
    return plan


def _insist(plan: Plan) -> None:
    """--strict: whatever the target refuses is an error, not a host part."""
    host = [part for part in plan.parts if part.placement == "host"]
    refused = [why for part in host for why in part.why if why.refused]
    if not refused:
        return
    first = refused[0]
    raise Unsupported(
        f"{sum(w.nodes for w in refused)} nodes cannot run on {plan.target}",
        where=", ".join(first.ops),
        why=first.reason,
        fix=first.fix or "leave out --strict to run them on the host",
    )
