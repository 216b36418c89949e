"""``adcompile build``: a model and a target in, a verified bundle out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from adcompile.cli import console
from adcompile.cli.search import show_search
from adcompile.errors import UsageError


def parse_pairs(items: list[str], option: str, *, last: bool = False) -> dict[str, str]:
    """``["a=b"]`` as a dict, cut at the first or *last* "="; no "=" or no name is a UsageError."""
    pairs: dict[str, str] = {}
    for item in items:
        key, sign, value = item.rpartition("=") if last else item.partition("=")
        if not sign or not key:
            raise UsageError(f"{option} {item!r} is not NAME=VALUE")
        if key in pairs:
            raise UsageError(f"{option} gives {key!r} twice")
        pairs[key] = value
    return pairs


def parse_shape(text: str, option: str = "--input-shape") -> tuple[int, ...]:
    """``1x3x320x320`` as a tuple; sizes must be 1 … 2^31."""
    try:
        shape = tuple(int(x) for x in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"{option} {text!r} is not like 1x3x320x320") from None
    if any(not 1 <= d < 2**31 for d in shape):
        raise UsageError(f"{option} {text!r}: every size must be at least 1")
    return shape


def command(
    model: Annotated[Path, typer.Argument(help="ONNX file, or a folder written by adcompile fit")],
    target: Annotated[str, typer.Option("--target", "-t", help="see: adcompile list targets")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="bundle folder")] = None,
    precision: Annotated[
        str | None, typer.Option(help="of the device parts; default: the target's first")
    ] = None,
    input_shape: Annotated[
        list[str] | None, typer.Option(help="fix a dynamic input: name=1x3x320x320")
    ] = None,
    calib: Annotated[
        Path | None, typer.Option(help="images, a recording, or model_io folders")
    ] = None,
    golden: Annotated[
        list[Path] | None, typer.Option(help="image or .npz to record golden data from (repeat)")
    ] = None,
    preprocess: Annotated[
        str | None, typer.Option(help="of image inputs: unit (0…1), imagenet, raw (0…255)")
    ] = None,
    contract: Annotated[Path | None, typer.Option(help="contract as YAML or JSON")] = None,
    plan: Annotated[Path | None, typer.Option(help="use this plan.yaml")] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option(
            help="NODE=host, device or a precision; NODE is a name, op:TYPE, re:REGEX or "
            "role:ROLE (repeat)"
        ),
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="allow an approximate rewrite by name (repeat)")
    ] = None,
    passes: Annotated[
        list[str] | None, typer.Option("--pass", help="extra pass: name or file.py:Class (repeat)")
    ] = None,
    head: Annotated[
        str, typer.Option(help="where an anomaly detector's search and scoring run: host, device")
    ] = "host",
    backend_file: Annotated[
        str | None, typer.Option("--backend", help="own target family: file.py:Class")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("-O", help="backend option NAME=VALUE (repeat)")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="accuracy to hold: 'snr>=30', 'segm_map>=0.40', 'segm_loss<=0.02'; promotes the "
            "fewest nodes that it takes"
        ),
    ] = None,
    coco: Annotated[
        Path | None, typer.Option(help="COCO annotations, for a budget on average precision")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="folder of the COCO images")] = None,
    eval_samples: Annotated[int, typer.Option(help="of these images, use the first N")] = 100,
    verify: Annotated[str, typer.Option(help="auto or none")] = "auto",
    strict: Annotated[bool, typer.Option(help="refuse when something stays on the host")] = False,
    host_code: Annotated[bool, typer.Option(help="generate the C++ host project")] = True,
    force: Annotated[bool, typer.Option(help="replace an existing output folder")] = False,
    cache: Annotated[bool, typer.Option(help="reuse finished steps of earlier builds")] = True,
    seed: Annotated[int, typer.Option(help="of made-up golden inputs")] = 0,
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Compile MODEL for a target into a folder that is verified, explained and ready to run."""
    from adcompile.compiler import BuildOptions, compile
    from adcompile.declare import read_contract

    shapes = parse_pairs(input_shape or [], "--input-shape")
    options = BuildOptions(
        precision=precision,
        input_shapes={name: parse_shape(text) for name, text in shapes.items()},
        calib=calib,
        golden=tuple(golden or ()),
        preprocess=preprocess,
        contract=None if contract is None else read_contract(contract),
        plan=plan,
        pins=parse_pairs(pin or [], "--pin", last=True),
        allow=tuple(allow or ()),
        passes=tuple(passes or ()),
        head=head,
        backend_class=backend_file,
        backend_options=parse_pairs(option or [], "-O"),
        budget=budget,
        coco=coco,
        coco_images=images,
        eval_samples=eval_samples,
        verify=verify,
        strict=strict,
        host_code=host_code,
        force=force,
        cache=cache,
        seed=seed,
    )
    with console.progress("build") as view:
        task = view.add_task("load", total=None)
        result = compile(
            model, target, output, options, watch=lambda step: view.update(task, description=step)
        )
    if json:
        console.emit_json(result.record())
    else:
        show(result)
    if not result.ok:
        raise typer.Exit(1)


def show(result: object) -> None:
    """Print what was built, part by part, and what was simulated or is still pending."""
    from adcompile.job import BuildResult

    assert isinstance(result, BuildResult)
    rows = [
        (
            p.name,
            p.placement,
            p.precision,
            str(p.nodes),
            f"{p.macs / 1e6:,.1f}",
            ", ".join(sorted(p.files)),
        )
        for p in result.manifest.parts
    ]
    console.table(
        f"{result.manifest.model.name} for {result.manifest.target}",
        ("part", "runs on", "precision", "nodes", "M multiply-adds", "files"),
        rows,
    )
    for action in result.manifest.actions:
        console.say(f"{action.name} ({action.part}): {action.state}" + _tail(action.detail))
    for note in result.notes:
        console.say(f"note: {note}")
    for step, state, reason in result.steps:
        console.say(f"{step}: {state} ({reason})")
    if result.search:
        show_search(result.search)
    console.say(f"verified on: {result.manifest.verified_on or 'not verified'}")
    show_results(result.manifest.results)
    console.say(f"{'ok' if result.ok else 'FAILED'}: {result.path} ({result.seconds:.1f} s)")


def show_results(results: Mapping[str, float | str]) -> None:
    """One line per output or part, its metrics side by side."""
    lines: dict[str, list[str]] = {}
    for name, value in sorted(results.items()):
        subject, _, metric = name.rpartition(" ")
        if subject:
            lines.setdefault(subject, []).append(f"{metric} {value}")
    for subject, metrics in lines.items():
        console.say(f"  {subject}: {', '.join(metrics)}")


def _tail(text: str) -> str:
    return f": {text}" if text else ""
