"""``adcompile plan``: split a model into device and host parts; print, save or re-check the plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.cli import console
from adcompile.cli.options import (
    Allowed,
    AsJson,
    BackendFile,
    BackendOptions,
    DecoderName,
    InputShapes,
    ModelPath,
    Passes,
    Pins,
    Settings,
    model_options,
    parse_pairs,
)
from adcompile.errors import InputError

if TYPE_CHECKING:
    from adcompile.job import Job
    from adcompile.place.plan import Plan


def command(
    model: ModelPath,
    target: Annotated[str, typer.Option("--target", "-t", help="see: adcompile list targets")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="write the plan as YAML")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="check this edited plan instead of making one")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="default: the target's first")] = None,
    input_shape: InputShapes = None,
    settings: Settings = None,
    decoder: DecoderName = None,
    pin: Pins = None,
    roi_policy: Annotated[
        str,
        typer.Option(help="parts per region: auto, loop, bucket, profile, mosaic, whole or host"),
    ] = "",
    roi_rows: Annotated[int, typer.Option(help="nominal regions per image, for all counts")] = 100,
    min_macs: Annotated[int, typer.Option(help="smaller parts go to the host")] = 0,
    keep_small: Annotated[
        bool, typer.Option(help="keep parts that cost more than they save")
    ] = False,
    passes: Passes = None,
    allow: Allowed = None,
    backend_file: BackendFile = None,
    option: BackendOptions = None,
    every: Annotated[bool, typer.Option("--all", help="every reason, not the main ones")] = False,
    yaml: Annotated[bool, typer.Option("--yaml", help="print the plan as YAML")] = False,
    as_json: AsJson = False,
) -> None:
    """Split MODEL for a target: parts with names, boundaries, costs and reasons."""
    from adcompile.cli.prepared import prepared
    from adcompile.steps.placing import placed

    asked = {
        "roi_rows": str(roi_rows),
        "min_macs": str(min_macs),
        "keep_small": str(keep_small),
        **({"roi_policy": roi_policy} if roi_policy else {}),
        **parse_pairs(option or [], "-O"),
    }
    options = replace(
        model_options(input_shape, settings, passes, allow, backend_file, pin, decoder),
        backend_options=asked,
    )
    with prepared(model, [target], options, precision=precision) as (job,):
        made, objections = (placed(job)[0], []) if plan is None else _reviewed(job, plan)
    if output is not None:
        _write(output, made.dump())
    if as_json:
        console.emit_json({**made.model_dump(mode="json"), "objections": objections})
    elif yaml:
        console.out.file.write(made.dump())
    else:
        show(made, every=every)
        for line in objections:
            console.say(f"objection: {line}")
    if objections:
        raise typer.Exit(1)


def _reviewed(job: Job, path: Path) -> tuple[Plan, list[str]]:
    """The given plan, after it was cut for real, and what the target objects to."""
    from adcompile.place.plan import apply_plan, read_plan, review

    plan = read_plan(path)
    apply_plan(job.ir, plan)
    objections = review(job.ir, plan, job.target, job.backend.supports)
    return plan, [f"{o.part}: {o.node} ({o.op}): {o.verdict.reason}" for o in objections]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            "cannot write the plan", where=str(path), why=error.strerror or str(error)
        ) from error


MOST_REASONS = 4


def show(plan: Plan, *, every: bool = False) -> None:
    """Print a plan for people."""
    total = sum(part.cost.macs for part in plan.parts) or 1
    console.table(
        f"{plan.model} for {plan.target}, {plan.precision}",
        ("part", "on", "nodes", "work", "in, out", "calls", "saves, costs"),
        [
            (
                part.name,
                part.precision if part.placement == "device" else "host",
                str(len(part.nodes)),
                _work(part.cost.macs, total),
                f"{_size(part.cost.bytes_in)}, {_size(part.cost.bytes_out)}",
                str(part.cost.calls),
                f"{_time(part.cost.saved_us)}, {_time(part.cost.boundary_us)}"
                if part.placement == "device"
                else "",
            )
            for part in plan.parts
        ],
    )
    for part in plan.parts:
        shown = part.why if every else part.why[:MOST_REASONS]
        for why in shown:
            fix = f" -> {why.fix}" if why.fix else ""
            exactness = f" [{why.fix_exactness}]" if why.fix_exactness else ""
            console.say(f"{part.name}: {why.nodes} {_ops(why.ops)}: {why.reason}{fix}{exactness}")
        if len(shown) < len(part.why):
            console.say(f"{part.name}: and {len(part.why) - len(shown)} more reasons, see --all")
    console.say(
        f"on the device: {plan.coverage_nodes:.0%} of nodes, {plan.coverage_macs:.2%} of multiply-adds"
    )
    console.say("times are rough estimates per image, used only to weigh parts against boundaries")
    each = ", ".join(
        f"{part.name} {_size(part.cost.weights + part.cost.activations)}"
        for part in plan.parts
        if part.placement == "device"
    )
    if each:
        console.say(f"memory of the device, without the vendor's scratch: about {each}")
    for note in plan.notes:
        console.say(f"note: {note}")


def _ops(ops: tuple[str, ...]) -> str:
    return ", ".join(ops[:6]) + (f" and {len(ops) - 6} more" if len(ops) > 6 else "")


def _work(macs: int, total: int) -> str:
    return f"{macs / 1e6:,.0f} M, {macs / total:.0%}" if macs else ""


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"


def _time(us: int) -> str:
    return f"{us} µs" if us < 1000 else f"{us / 1000:.1f} ms"
