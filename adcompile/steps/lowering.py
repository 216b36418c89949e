"""Step 8: each device part to its precision and dialect; finished ones come from the cache."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel

from adcompile.backend_options import float_nodes
from adcompile.fileset import FileSet
from adcompile.interfaces import Backend, LowerContext, Part, Report
from adcompile.ir import model_io
from adcompile.ir.emit import model_digest
from adcompile.job import Job
from adcompile.manifest import PartRecord, RewriteRecord
from adcompile.steps.tools import tool_versions
from adcompile.version import code_version

MODEL = "lowered.onnx"
RECORD = "lowered.json"


def context(job: Job, part: Part) -> LowerContext:
    """What the backend gets for *part* besides the part."""
    options = {**job.options.backend_options, **job.plan.options_of(part.name)}
    if job.float_nodes:
        options["float_nodes"] = "\n".join([*sorted(float_nodes(options)), *job.float_nodes])
    work = job.work / "lower"
    work.mkdir(parents=True, exist_ok=True)
    return LowerContext(
        target=job.target,
        precision=part.precision,
        calibration=job.calibration.get(part.name),
        golden=job.samples_of(part),
        work=work,
        options=options,
        report=job.report,
    )


def emit_part(
    job: Job, backend: Backend, part: Part, lowered: Part, ctx: LowerContext, out: FileSet
) -> PartRecord:
    """Add a part's files to *out*; its record has the plan's options too."""
    record = backend.emit(part, lowered, ctx, out)
    options = {**job.plan.options_of(part.name), **record.options}
    return record.model_copy(update={"options": options})


def lower(job: Job) -> None:
    """Lower every device part; the result and what was rewritten are kept for the next build."""
    for part in job.parts:
        if part.placement == "device":
            job.watch(f"lower {part.name} to {part.precision}")
            job.lowered[part.name] = _lowered(job, part)


def _lowered(job: Job, part: Part) -> Part:
    ctx = context(job, part)
    if part.precision == "fp32":  # nothing to compute, so nothing worth keeping
        return job.backend.lower(part, ctx)
    fields = {
        "part": model_digest(part.model),
        "target": f"{job.target.name} {job.target.toolchain}",
        "precision": part.precision,
        "options": json.dumps(dict(sorted(ctx.options.items()))),
        "calibration": job.calibration_id if part.name in job.calibration else "",
        "adcompile": code_version(),
        "tools": json.dumps(tool_versions()),
    }
    result: list[Part] = []

    def produce(folder: Path) -> None:
        own = Report(allowed=job.report.allowed)
        done = job.backend.lower(part, replace(ctx, report=own))
        result.append(done)
        model_io.save_model(done.model, folder / MODEL)
        kept = Kept(precision=done.precision, rewrites=own.rewrites, notes=own.notes)
        (folder / RECORD).write_text(kept.model_dump_json(), encoding="utf-8")
        kept.replay(job)

    entry = job.cache.step(f"lower {part.name}".replace(" ", "-"), fields, produce)
    if result:
        return result[0]
    if entry is None:
        return job.backend.lower(part, ctx)
    kept = Kept.model_validate_json((entry / RECORD).read_text(encoding="utf-8"))
    kept.replay(job)
    model = model_io.load_model(entry / MODEL)
    return replace(part, model=model, precision=kept.precision)


class Kept(BaseModel):
    """What is kept of a lowered part beside its model."""

    precision: str
    rewrites: list[RewriteRecord]
    notes: list[str]

    def replay(self, job: Job) -> None:
        """Report again what was done when the part was lowered."""
        job.report.rewrites += self.rewrites
        job.report.notes += self.notes
