"""``adcompile optimize``: simplify an ONNX model, exactly, and look at the graph around any pass."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from adcompile.cli import console
from adcompile.errors import UsageError

if TYPE_CHECKING:
    import onnx_ir as ir

    from adcompile.interfaces import Pass, Report
    from adcompile.rewrite.instruments import Timing
    from adcompile.rewrite.pipeline import Instrument, Pipeline

Texts = list[str]


def command(
    model: Annotated[Path, typer.Argument(help="ONNX file")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="where to write the result")
    ] = None,
    input_shape: Annotated[
        Texts | None, typer.Option("--input-shape", help="NAME=1x3x320x320; repeat per input")
    ] = None,
    passes: Annotated[
        str | None, typer.Option("--passes", help="pipeline text instead of the standard one")
    ] = None,
    own: Annotated[
        Texts | None, typer.Option("--pass", help="FILE.py:Name, run after the standard pipeline")
    ] = None,
    set_attribute: Annotated[
        Texts | None, typer.Option("--set", help="'NODE attribute=value', changed before all else")
    ] = None,
    allow: Annotated[
        Texts | None, typer.Option("--allow", help="approximate pass or rule that may be used")
    ] = None,
    dump_before: Annotated[
        Texts | None, typer.Option("--dump-before", help="print the graph before this pass")
    ] = None,
    dump_after: Annotated[
        Texts | None, typer.Option("--dump-after", help="print the graph after this pass")
    ] = None,
    show_time: Annotated[bool, typer.Option("--time", help="time and nodes per pass")] = False,
    verify: Annotated[
        bool, typer.Option("--verify-passes", help="check the model after every pass (slow)")
    ] = False,
    data: Annotated[
        bool | None, typer.Option("--external-data/--no-external-data", help="weights beside it")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Simplify MODEL: fold constants and shapes, remove and join nodes. Exact unless you allow more.

    Example: adcompile optimize m.onnx -o small.onnx --input-shape image=1x3x320x320 --time
    """
    from adcompile.interfaces import Report
    from adcompile.ir.graph import count_nodes
    from adcompile.ir.model_io import load_model, save_model
    from adcompile.rewrite.instruments import Timing

    if output is None and not (as_json or show_time or dump_before or dump_after):
        raise UsageError("nothing to do with the result", fix="pass -o OUT.onnx, or --json")
    pipeline = _pipeline(passes, input_shape or [], own or [], set_attribute or [])
    _check_names(pipeline, [*(dump_before or ()), *(dump_after or ())])
    start = time.perf_counter()
    graph = load_model(model)
    before = count_nodes(graph)
    report, timing = Report(allowed=frozenset(allow or ())), Timing()
    watchers = _instruments(timing, dump_before or [], dump_after or [], verify)
    pipeline.run(graph, report, watchers)
    if output is not None:
        save_model(graph, output, external=data)
    result = _result(model, before, count_nodes(graph), pipeline, report, timing)
    result["seconds"] = round(time.perf_counter() - start, 3)
    if as_json:
        console.emit_json(result)
        return
    _show(result, report.notes, output, timing if show_time else None)


def _pipeline(
    passes: str | None, shapes: Sequence[str], own: Sequence[str], settings: Sequence[str]
) -> Pipeline:
    """--set, then --input-shape, then the standard or given pipeline, then the user's passes."""
    from adcompile.passes.set_attribute import parse_setting
    from adcompile.passes.specialize import Specialize
    from adcompile.rewrite.canonical import canonical
    from adcompile.rewrite.pipeline import Pipeline

    first: list[Pass] = [parse_setting(text) for text in settings]
    if shapes:
        first.append(Specialize(shapes=tuple(shapes)))
    main = canonical() if passes is None else Pipeline.parse(passes)
    last = sum((Pipeline.parse(text) for text in own), Pipeline(()))
    return Pipeline(tuple(first)) + main + last


def _check_names(pipeline: Pipeline, wanted: Sequence[str]) -> None:
    known = list(dict.fromkeys(pipeline.names()))
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"the pipeline has no pass {name!r}", fix="it has: " + ", ".join(known)
            )


def _instruments(
    timing: Timing, before: Sequence[str], after: Sequence[str], verify: bool
) -> list[Instrument]:
    from adcompile.rewrite.instruments import Dump, Verify

    found: list[Instrument] = [timing]
    if before or after:
        found.append(Dump(_write_dump, before, after))
    if verify:
        found.append(Verify())
    return found


def _write_dump(title: str, text: str) -> None:
    sys.stdout.write(f"# {title}\n{text}\n")


def _result(
    model: Path,
    before: tuple[int, int],
    after: tuple[int, int],
    pipeline: Pipeline,
    report: Report,
    timing: Timing,
) -> dict[str, object]:
    from adcompile.rewrite.instruments import Hits

    return {
        "model": model.name,
        "nodes_before": {"top": before[0], "all": before[1]},
        "nodes_after": {"top": after[0], "all": after[1]},
        "pipeline": str(pipeline),
        "hits": Hits(report).counts(),
        "notes": report.notes,
        "rewrites": [record.model_dump(exclude_none=True) for record in report.rewrites],
        "passes": [
            {
                "pass": name,
                "runs": timing.runs[name],
                "seconds": round(seconds, 4),
                "nodes": timing.nodes[name],
            }
            for name, seconds in timing.seconds.items()
        ],
    }


def _show(
    result: dict[str, object], notes: Sequence[str], output: Path | None, timing: Timing | None
) -> None:
    before, after = result["nodes_before"], result["nodes_after"]
    console.say(f"{result['model']}: {_count(before)} -> {_count(after)} nodes, constants aside")
    for note in notes:
        console.say(f"note: {note}")
    if timing is not None:
        rows = [
            (name, str(timing.runs[name]), f"{seconds:.3f}", str(timing.nodes[name]))
            for name, seconds in timing.seconds.items()
        ]
        console.table("Passes", ("pass", "runs", "seconds", "nodes after"), rows)
    console.say(f"{result['seconds']} s" + (f", written to {output}" if output else ""))


def _count(counts: object) -> str:
    if not isinstance(counts, dict):
        return ""
    numbers = cast("dict[str, int]", counts)
    top, everything = numbers["top"], numbers["all"]
    return str(top) if top == everything else f"{top} ({everything} with subgraphs)"


def graph_of(path: Path, shapes: Sequence[str], *, prepare: bool) -> ir.Model:
    """A model, loaded and (with *prepare*) canonicalized; for verbs that only look at it."""
    from adcompile.interfaces import Report
    from adcompile.ir.model_io import load_model

    model = load_model(path)
    if prepare or shapes:
        _pipeline(None if prepare else "infer-shapes", shapes, [], []).run(model, Report())
    return model
