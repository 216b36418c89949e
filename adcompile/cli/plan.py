"""``adcompile plan``: split a model into device and host parts; print, save or re-check the plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.cli import console
from adcompile.cli.build import parse_pairs, parse_shape
from adcompile.errors import InputError, UsageError

if TYPE_CHECKING:
    from adcompile.job import Job
    from adcompile.place.plan import Plan, Settings


def command(
    model: Annotated[Path, typer.Argument(help="ONNX file, or a folder written by adcompile fit")],
    target: Annotated[str, typer.Option("--target", "-t", help="see: adcompile list targets")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="write the plan as YAML")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="check this edited plan instead of making one")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="default: the target's first")] = None,
    input_shape: Annotated[
        list[str] | None, typer.Option(help="fix a dynamic input: name=1x3x320x320")
    ] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option(
            help="SELECTOR=host, device or a precision; SELECTOR is a node name, op:TYPE, "
            "re:REGEX or role:ROLE (repeat)"
        ),
    ] = None,
    roi_policy: Annotated[
        str,
        typer.Option(help="parts per region: auto, loop, bucket, profile, mosaic, whole or host"),
    ] = "",
    roi_rows: Annotated[int, typer.Option(help="nominal regions per image, for all counts")] = 100,
    min_macs: Annotated[int, typer.Option(help="smaller parts go to the host")] = 0,
    keep_small: Annotated[
        bool, typer.Option(help="keep parts that cost more than they save")
    ] = False,
    passes: Annotated[
        list[str] | None, typer.Option("--pass", help="extra pass: name or file.py:Class (repeat)")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="allow an approximate rewrite by name (repeat)")
    ] = None,
    backend_file: Annotated[
        str | None, typer.Option("--backend", help="own target family: file.py:Class")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="every reason, not the main ones")] = False,
    yaml: Annotated[bool, typer.Option("--yaml", help="print the plan as YAML")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the plan as JSON")] = False,
) -> None:
    """Split MODEL for a target: parts with names, boundaries, costs and reasons."""
    from adcompile.cli.prepared import prepared
    from adcompile.job import BuildOptions

    shapes = parse_pairs(input_shape or [], "--input-shape")
    options = BuildOptions(
        input_shapes={name: parse_shape(text) for name, text in shapes.items()},
        passes=tuple(passes or ()),
        allow=tuple(allow or ()),
        backend_class=backend_file,
    )
    settings = _settings(
        pin or [],
        roi_policy=roi_policy,
        roi_rows=roi_rows,
        min_macs=min_macs,
        keep_small=keep_small,
    )
    with prepared(model, [target], options) as (job,):
        if plan is not None:
            made, objections = _reviewed(job, plan)
        else:
            made, objections = _made(job, settings, precision), []
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


def _settings(
    pins: list[str], *, roi_policy: str, roi_rows: int, min_macs: int, keep_small: bool
) -> Settings:
    from pydantic import ValidationError

    from adcompile.place.plan import Settings

    pairs = [item.rpartition("=") for item in pins]
    if any(not sign or not selector or not where for selector, sign, where in pairs):
        raise UsageError("--pin wants SELECTOR=host, SELECTOR=device or SELECTOR=PRECISION")
    try:
        return Settings.model_validate(
            {
                "device": tuple(s for s, _, where in pairs if where == "device"),
                "host": tuple(s for s, _, where in pairs if where == "host"),
                "precisions": {s: p for s, _, p in pairs if p not in {"device", "host"}},
                "roi_policy": roi_policy,
                "roi_rows": roi_rows,
                "min_macs": min_macs,
                "keep_small": keep_small,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "option"
        raise UsageError(f"--{field.replace('_', '-')} is not valid", why=first["msg"]) from error


def _made(job: Job, settings: Settings, precision: str | None) -> Plan:
    from adcompile.place.plan import make_plan

    return make_plan(
        job.ir, job.target, job.backend.supports, precision=precision, options=settings
    )


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
