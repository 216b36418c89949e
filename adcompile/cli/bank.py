"""``adcompile bank``: convert, describe and check trained-model files.

``adcompile bank convert IN OUT`` with two positional arguments also serves those who used R0's
converter: it makes the output's folder, prints the same values, and ends with ``done.``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from adcompile.anomaly.formats.convert import (
    FORMATS,
    detect,
    read_trained,
    with_values,
    write_trained,
)
from adcompile.anomaly.formats.record import Trained, findings
from adcompile.cli import console
from adcompile.cli.options import parse_pairs

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Convert, describe and check memory banks and trained-model files.",
)
_FORMATS = "; ".join(f"{name}: {kind.text}" for name, kind in FORMATS.items())


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="any known file; its content tells its format")],
    output: Annotated[Path, typer.Argument(help="file to write; its ending tells the format")],
    to: Annotated[str, typer.Option(help=f"format to write. {_FORMATS}")] = "",
    from_: Annotated[str, typer.Option("--from", help="read as this format")] = "",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="give a missing value: threshold=12.5 (repeat)"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Convert a trained-model file to another format."""
    trained = with_values(read_trained(source, from_), parse_pairs(set_ or [], "--set"))
    kind = write_trained(output, trained, to)
    if as_json:
        written = {"from": str(source), "to": str(output), "format": kind}
        console.emit_json(trained.summary() | written)
        return
    for line in _lines(trained):
        console.say(line)
    console.say(f"input: {source}")
    console.say(f"output: {output} ({kind})")
    console.say("done.")


@app.command()
def info(
    source: Annotated[Path, typer.Argument(help="any known file, or an R1 folder")],
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Say what a trained-model file holds."""
    trained = read_trained(source)
    if as_json:
        console.emit_json(trained.summary() | {"format": detect(source)})
        return
    console.say(f"format: {FORMATS[detect(source)].text}")
    for line in _lines(trained):
        console.say(line)


@app.command()
def check(
    source: Annotated[Path, typer.Argument(help="any known file, or an R1 folder")],
    columns: Annotated[
        int | None, typer.Option(help="feature width of the backbone the bank is meant for")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Check a file for contradictions; exit code 1 when there are any."""
    trained = read_trained(source)
    found = [(f.field, f.text) for f in findings(trained)]
    if columns is not None and trained.bank is not None and trained.bank.shape[1] != columns:
        found.append(
            ("bank", f"has {trained.bank.shape[1]} columns, the backbone gives {columns}")
        )
    if as_json:
        console.emit_json(
            {"ok": not found, "findings": [{"field": f, "text": t} for f, t in found]}
        )
    elif not found:
        console.say(f"{source}: consistent")
    for field, text in () if as_json else found:
        console.say(f"{field}: {text}")
    if found:
        raise typer.Exit(1)


def _lines(trained: Trained) -> list[str]:
    """The summary, one value a line, in R0's order first."""
    values = trained.summary()
    first = ("threshold", "minimum", "maximum", "ratio", "neighbours", "bank")
    names = [n for n in first if n in values] + [n for n in values if n not in first]
    return [f"{name}: {_text(values[name])}" for name in names]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
