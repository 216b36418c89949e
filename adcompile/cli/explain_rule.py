"""``adcompile explain-rule``: what a rule or pass does, and why it did or did not apply at a node."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.cli import console
from adcompile.errors import UsageError

if TYPE_CHECKING:
    from adcompile.rewrite.explain import Explanation
    from adcompile.rewrite.named import Named


def command(
    rule: Annotated[
        str, typer.Argument(help="a name from a report, or from `adcompile list rules`")
    ],
    node: Annotated[
        str | None, typer.Argument(help="name of a node, or of a value it makes")
    ] = None,
    model: Annotated[Path | None, typer.Argument(help="ONNX file")] = None,
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
    """Say what RULE does: a rule, a pass, a step of a pass, or what lowering reports.

    With NODE and MODEL, try it there and say where its pattern or its condition fails; exit code 0
    when it applies, 1 when it does not.
    """
    from adcompile.rewrite.named import find_named

    found = find_named(rule)
    answer = None
    if node is not None:
        if model is None:
            raise UsageError("a node without its model", fix=f"explain-rule {rule} {node} MODEL")
        answer = _tried(found, node, model, input_shape or [], canonical, allow or [])
    if as_json:
        console.emit_json(_record(found, answer))
    else:
        _show(found, answer)
    if answer is not None and not answer.applies:
        raise typer.Exit(1)


def _tried(
    found: Named, node: str, model: Path, shapes: list[str], canonical: bool, allow: list[str]
) -> Explanation:
    from adcompile.cli.optimize import graph_of
    from adcompile.interfaces import Report
    from adcompile.rewrite.explain import explain, explain_pass, find_node

    if found.owner is None:
        raise UsageError(
            f"{found.name} is done while a part is lowered",
            why="it belongs to a build, not to one node of a model",
            fix=f"adcompile explain-rule {found.name}",
        )
    graph = graph_of(model, shapes, prepare=canonical)
    report = Report(frozenset(allow))
    place = find_node(graph, node)
    if found.rule is not None:
        return explain(found.rule, place, graph, report)
    return explain_pass(found.owner, found.name, place, graph, report)


def _record(found: Named, answer: Explanation | None) -> dict[str, object]:
    record: dict[str, object] = {
        "rule": found.name,
        "kind": found.kind,
        "pass": found.holder,
        "exactness": found.exactness.value,
        "summary": found.summary,
        "detail": found.detail,
    }
    return record if answer is None else {**record, **asdict(answer)}


def _show(found: Named, answer: Explanation | None) -> None:
    title = f"{found.name} ({found.place}, {found.exactness.value})"
    if answer is None:
        console.say(title)
        console.say(f"  {found.summary}")
        detail = found.detail.strip()
        if detail and detail != found.summary:
            console.say(detail)
        return
    verdict = "applies" if answer.applies else "does not apply"
    console.say(f"{title} {verdict} at {answer.node}")
    console.say(f"  what: {found.summary}")
    stage = f"  [{answer.stage}]" if answer.stage else ""
    console.say(f"  why:  {answer.why}{stage}")
