"""``adcompile build``: a model and a target in, a verified bundle out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.cli import console
from adcompile.cli.next_steps import Asked, next_steps
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
from adcompile.cli.search import show_search
from adcompile.cli.verdicts import in_words
from adcompile.errors import BudgetMissed
from adcompile.target import finer_precision

if TYPE_CHECKING:
    from adcompile.anomaly.rebuild import Rebuilt
    from adcompile.job import BuildResult


def command(
    context: typer.Context,
    model: ModelPath,
    target: Annotated[str, typer.Option("--target", "-t", help="see: adcompile list targets")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="bundle folder")] = None,
    precision: Annotated[
        str | None, typer.Option(help="of the device parts; default: the target's first")
    ] = None,
    input_shape: InputShapes = None,
    settings: Settings = None,
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
    classes: Annotated[
        Path | None, typer.Option(help="JSON or text: names of a detector's labels, label 0 first")
    ] = None,
    decoder: DecoderName = None,
    plan: Annotated[Path | None, typer.Option(help="use this plan.yaml")] = None,
    pin: Pins = None,
    allow: Allowed = None,
    passes: Passes = None,
    head: Annotated[
        str, typer.Option(help="where an anomaly detector's search and scoring run: host, device")
    ] = "host",
    data: Annotated[
        Path | None,
        typer.Option(
            help="normal images: measure bank, statistics, quantiles, threshold again on the "
            "lowered network"
        ),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(
            help="good and bad images for threshold, report and --budget; without --data bank and "
            "statistics stay as they are"
        ),
    ] = None,
    bank_format: Annotated[
        str, typer.Option(help="with --data: adbank, or r0 to add the .bin of R0's application")
    ] = "adbank",
    backend_file: BackendFile = None,
    option: BackendOptions = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="accuracy to hold, with the fewest nodes in float that it takes: 'snr>=30', "
            "'segm_map>=0.40', 'segm_loss<=0.02'; of an anomaly detector with --val: "
            "'auroc_loss<=0.01,flips<=0.1'"
        ),
    ] = None,
    budget_tries: Annotated[
        int, typer.Option(help="measure at most so many choices of what stays in float")
    ] = 24,
    coco: Annotated[
        Path | None, typer.Option(help="COCO annotations, for a budget on average precision")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="folder of the COCO images")] = None,
    eval_samples: Annotated[int, typer.Option(help="of these images, use the first N")] = 100,
    verify: Annotated[str, typer.Option(help="auto or none")] = "auto",
    strict: Annotated[bool, typer.Option(help="refuse when something stays on the host")] = False,
    locked: Annotated[
        Path | None,
        typer.Option(
            help="an earlier build's manifest.json (or its bundle): exit 1 with the cause when "
            "this one comes out otherwise"
        ),
    ] = None,
    host_code: Annotated[bool, typer.Option(help="generate the C++ host project")] = True,
    force: Annotated[bool, typer.Option(help="replace an existing output folder")] = False,
    cache: Annotated[bool, typer.Option(help="reuse finished steps of earlier builds")] = True,
    seed: Annotated[int, typer.Option(help="of made-up golden inputs")] = 0,
    json: AsJson = False,
) -> None:
    """Compile MODEL for a target into a folder that is verified, explained and ready to run."""
    from adcompile.compiler import compile
    from adcompile.declare import read_contract
    from adcompile.place.targets import resolve_target

    options = replace(
        model_options(input_shape, settings, passes, allow, backend_file, pin, decoder),
        precision=precision,
        calib=calib,
        golden=tuple(golden or ()),
        preprocess=preprocess,
        contract=None if contract is None else read_contract(contract),
        classes=() if classes is None else _names(classes),
        plan=plan,
        head=head,
        data=data,
        val=val,
        bank_format=bank_format,
        backend_options=parse_pairs(option or [], "-O"),
        budget=budget,
        budget_tries=budget_tries,
        coco=coco,
        coco_images=images,
        eval_samples=eval_samples,
        verify=verify,
        strict=strict,
        locked=locked,
        host_code=host_code,
        force=force,
        cache=cache,
        seed=seed,
    )
    try:
        with console.watching("load") as watch:
            result = compile(model, target, output, options, watch=watch)
    except BudgetMissed as missed:
        if not json:
            show_search(missed.search)
        raise
    chip = resolve_target(target, backend=backend_file or "")
    finer = finer_precision(chip, result.manifest.options["precision"])
    asked = Asked(words=context.obj or [], model=model, val=val, finer=finer)
    steps = next_steps(result.manifest, result.path, asked, ok=result.ok)
    if json:
        listed = [{"command": command, "for": reason} for command, reason in steps]
        console.emit_json({**result.record(), "next": listed})
    else:
        show(result)
        for command, reason in steps:
            console.say(f"next: {command}\n      {reason}")
    if not result.ok:
        raise typer.Exit(1)


def _names(file: Path) -> tuple[str, ...]:
    """Class names by label; a label without a name is called by its number."""
    from adcompile.detection.coco import read_classes

    names = read_classes(file)
    return tuple(names.get(label, str(label)) for label in range(max(names, default=-1) + 1))


def show(result: BuildResult) -> None:
    """Print what was built, part by part, and what was simulated or is still pending."""
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
    if result.rebuilt is not None:
        show_rebuilt(result.rebuilt)
    if accuracy := result.manifest.results.get("accuracy"):
        console.say(str(accuracy))
    for action in result.manifest.actions:
        if action.state == "pending":
            continue  # among the next steps
        console.say(f"{action.name} ({action.part}): {action.state}" + _tail(action.detail))
    for note in result.notes:
        console.say(f"note: {note}")
    if any(state == "reused" for _, state, _ in result.steps):
        for step, state, reason in result.steps:
            console.say(f"{step}: {state} ({reason})")
    if result.search:
        show_search(result.search)
    console.say(f"verified on: {result.manifest.verified_on or 'not verified'}")
    tabled: set[str] = set() if result.rebuilt is None else set(result.rebuilt.results())
    for line in in_words({k: v for k, v in result.manifest.results.items() if k not in tabled}):
        console.say(f"  {line}")
    console.say(f"{'ok' if result.ok else 'FAILED'}: {result.path} ({result.seconds:.1f} s)")


def show_rebuilt(rebuilt: Rebuilt) -> None:
    """Float, quantized as it was fitted and with its own, and the images decided otherwise."""
    head = ("network", "image AUROC", "F1", "threshold", "score shift", "decision flips")
    console.table(f"{rebuilt.title}, {rebuilt.judged}", head, rebuilt.table())
    for what, flips in rebuilt.lists:
        for flip in flips[:20]:
            verdict = "anomalous" if flip.anomalous else "normal"
            truth = "anomalous" if flip.label else "normal"
            console.say(
                f"  {what}: {flip.image} ({truth}) now {verdict}, "
                f"score {flip.float_score:.3f} -> {flip.score:.3f}"
            )


def _tail(text: str) -> str:
    return f": {text}" if text else ""
