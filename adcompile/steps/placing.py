"""Steps 6 and 7: a verdict for every node, and parts cut from the graph by the plan."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from adcompile.anomaly.recognise.residual import better_in_float
from adcompile.backend_options import PLACEMENT
from adcompile.detection import tail
from adcompile.errors import Unsupported, UsageError
from adcompile.job import Job
from adcompile.passes.decode_detections import RESULTS
from adcompile.place.apply import apply_plan
from adcompile.place.memory import too_large
from adcompile.place.planner import Better, Placed, place_nodes
from adcompile.place.review import review
from adcompile.place.schema import MAX_PLAN_BYTES, Plan, Settings, parse_plan
from adcompile.target import Target


def place_and_partition(job: Job) -> None:
    """Make the plan, or take the user's, and cut the model by it."""
    job.watch("place and partition")
    keep_in_float(job)
    job.plan = _given(job) if job.options.plan else placed(job)[0]
    for note in job.plan.notes:
        job.report.note(note)
    if job.options.strict:
        _insist(job.plan, job.target)
    job.parts = apply_plan(job.ir, job.plan)


def placed(job: Job, precision: str | None = None) -> tuple[Plan, list[Placed]]:
    """The plan that the job's options ask for, and the story of every node. *precision* is another
    one than the job's, to compare with."""
    return place_nodes(
        job.ir,
        job.target,
        job.backend.supports,
        precision=precision or job.precision,
        options=_settings(job.options.pins, job.options.backend_options),
        in_float=_in_float(job),
    )


def _in_float(job: Job) -> Mapping[str, Better]:
    """Nodes that lose too much as integers, by name: of an anomaly detector, and of a detector whose
    boxes are computed from its raw outputs. Where the device can compute some nodes in float (see
    ``keep_in_float``) the latter stay there."""
    if job.contract.score is not None:
        return {name: Better(why) for name, why in better_in_float(job.ir).items()}
    return {} if _float_inside(job) else tail.better_in_float(job.ir, decoded_outputs(job))


def keep_in_float(job: Job) -> None:
    """Box and score arithmetic stays in float32 in a part of fewer bits, on devices that mix them."""
    found = tail.better_in_float(job.ir, decoded_outputs(job)) if _float_inside(job) else {}
    if not found or job.precision == "fp32":
        return
    job.float_nodes += tuple(found)
    job.report.note(
        f"box and score arithmetic stays in float32 ({len(found)} nodes behind the last layers): "
        f"{job.precision} rounds boxes in pixels and scores in 0…1 alike"
    )


def _float_inside(job: Job) -> bool:
    return job.target.facts.get("float_inside", "true") == "true"


def decoded_outputs(job: Job) -> set[str]:
    """Outputs that are, or hold, boxes behind the raw output of a detector."""
    roles = job.contract.roles
    if job.contract.decoder is None:
        return {name for name, role in roles.items() if role == tail.RAW}
    return {name for name, role in roles.items() if role in RESULTS}


def _settings(pins: Mapping[str, str], options: Mapping[str, str]) -> Settings:
    """The user's pins (selector to device, host or a precision), and those backend options that
    are about placement. Raises UsageError for a value that is none."""
    known = PLACEMENT.keys() & Settings.model_fields.keys()
    asked: dict[str, object] = {
        "device": tuple(n for n, where in pins.items() if where == "device"),
        "host": tuple(n for n, where in pins.items() if where == "host"),
        "precisions": {n: what for n, what in pins.items() if what not in {"host", "device"}},
        **{name: text for name, text in options.items() if name in known},
    }
    if "roi_buckets" in options:
        asked["roi_buckets"] = tuple(options["roi_buckets"].split(","))
    try:
        return Settings.model_validate(asked)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise UsageError(
            f"-O {name}={options.get(name, '')}", why=first["msg"], fix="adcompile plan --help"
        ) from error


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
    objections = review(job.ir, plan, job.target, job.backend.supports)
    if objections:
        first = objections[0]
        raise UsageError(
            f"the plan puts {len(objections)} nodes on the device that it cannot run",
            where=f"{path}: part {first.part}, node {first.node} ({first.op})",
            why=first.verdict.reason,
            fix=first.verdict.fix or "put the node into a host part",
        )
    return plan


def _insist(plan: Plan, target: Target) -> None:
    """--strict: whatever the target refuses is an error, not a host part; so are parts too large."""
    what, fix = too_large(plan.parts, target, plan.settings.memory_mib)
    if what:
        raise Unsupported(what, where=plan.target, fix=fix)
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
