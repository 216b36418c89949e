"""``adcompile explain-rule``: why a rule did or did not apply at a node."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from adcompile.cli import console


def command(
    rule: Annotated[str, typer.Argument(help="a name from `adcompile list rules`")],
    node: Annotated[str, typer.Argument(help="name of a node, or of a value it makes")],
    model: Annotated[Path, typer.Argument(help="ONNX file")],
    input_shape: Annotated[
        list[str] | None, typer.Option("--input-shape", help="NAME=1x3x320x320")
    ] = None,
    canonical: Annotated[
        bool, typer.Option("--canonical", help="look at the model after the standard pipeline")
    ] = False,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", help="approximate rules that may be used")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Try RULE at NODE of MODEL and say where its pattern or its condition fails.

    Exit code 0 when the rule applies, 1 when it does not.
    """
    from adcompile.cli.optimize import graph_of
    from adcompile.interfaces import Report
    from adcompile.rewrite.explain import explain, find_node, find_rule

    holder, found = find_rule(rule)
    graph = graph_of(model, input_shape or [], prepare=canonical)
    answer = explain(found, find_node(graph, node), graph, Report(frozenset(allow or ())))
    if as_json:
        console.emit_json({**asdict(answer), "pass": holder, "summary": found.summary})
    else:
        verdict = "applies" if answer.applies else "does not apply"
        console.say(f"{rule} (pass {holder}, {found.exactness.value}) {verdict} at {answer.node}")
        console.say(f"  rule: {found.summary}")
        if not answer.applies:
            console.say(f"  why:  {answer.why}  [{answer.stage}]")
    if not answer.applies:
        raise typer.Exit(1)
