"""``adcompile lint``: contradictions between a model's contract and its graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from adcompile.cli import console
from adcompile.cli.options import parse_pairs, parse_shape


def command(
    model: Annotated[
        Path | None, typer.Argument(help="ONNX file, or a folder written by adcompile fit")
    ] = None,
    contract: Annotated[Path | None, typer.Option(help="contract as YAML or JSON")] = None,
    preprocess: Annotated[
        str | None, typer.Option(help="of image inputs: unit (0…1), imagenet, raw (0…255)")
    ] = None,
    input_shape: Annotated[
        list[str] | None, typer.Option(help="fix a dynamic input: name=1x3x320x320")
    ] = None,
    rules: Annotated[bool, typer.Option("--rules", help="list the rules instead")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Compare MODEL's contract with its graph. Exit 1: something contradicts.

    Example: adcompile lint model.onnx --preprocess imagenet
    """
    from adcompile.anomaly.lint import lint, subject_of
    from adcompile.cli.prepared import prepared
    from adcompile.declare import read_contract
    from adcompile.errors import UsageError
    from adcompile.job import BuildOptions

    if rules:
        _list_rules(as_json)
        return
    if model is None:
        raise UsageError("no model given", fix="adcompile lint MODEL, or adcompile lint --rules")
    shapes = parse_pairs(input_shape or [], "--input-shape")
    options = BuildOptions(
        input_shapes={name: parse_shape(text) for name, text in shapes.items()},
        contract=None if contract is None else read_contract(contract),
        preprocess=preprocess,
    )
    with prepared(model, ["cpu"], options) as jobs:
        job = jobs[0]
        score = job.contract.score
        subject = subject_of(job.ir, job.contract)
        issues = lint(replace(subject, original=job.reference))
    if as_json:
        console.emit_json(
            {
                "model": model.name,
                "score": None if score is None else score.model_dump(mode="json"),
                "issues": [issue.record() for issue in issues],
            }
        )
    else:
        for issue in issues:
            console.say(str(issue))
        head = "no anomaly head" if score is None else f"{score.method} head"
        console.say(f"{model.name}: {head}, {len(issues)} contradictions")
    if issues:
        raise typer.Exit(1)


def _list_rules(as_json: bool) -> None:
    from adcompile.anomaly.lint import RULES

    found = {name: (rule.__doc__ or "").splitlines()[0] for name, rule in RULES.items()}
    if as_json:
        console.emit_json({"rules": found})
    else:
        console.table("rules of the lint", ("rule", "what it finds"), list(found.items()))
