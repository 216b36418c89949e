"""``adcompile tradeoff``: bank size against accuracy, and the smallest bank that meets a goal."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from adcompile.anomaly.model_folder import load_fitted, save_fitted
from adcompile.anomaly.sources import read_data
from adcompile.anomaly.tradeoff import Goal, Size, Sizes, shrink, solve
from adcompile.cli import console
from adcompile.cli.fit import show, split_of
from adcompile.errors import UsageError


def command(
    model: Annotated[Path, typer.Argument(help="PatchCore folder written by adcompile fit")],
    data: Annotated[Path, typer.Option(help="labelled images; sizes are judged on validation")],
    f1: Annotated[float | None, typer.Option(help="at least this F1")] = None,
    auroc: Annotated[float | None, typer.Option(help="at least this image AUROC")] = None,
    latency: Annotated[
        float | None, typer.Option(help="at most this many ms per image, measured here")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="at most this many bytes of bank: 500000, 64k, 2M")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="write the chosen model here")
    ] = None,
    force: Annotated[bool, typer.Option(help="replace an existing folder")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Print size, F1, AUROC and search time of nested coresets; pick the one that meets the goal."""
    goal = Goal(f1, auroc, latency, None if memory is None else parse_bytes(memory))
    wanted = goal != Goal()
    if output is not None and not wanted:
        raise UsageError(
            "no goal says which size to write", fix="--f1, --auroc, --latency, --memory"
        )
    if output is not None and output.exists() and not force:
        raise UsageError("the output folder exists", where=str(output), fix="--force, or another")
    fitted = load_fitted(model)
    found = read_data(
        data,
        split_of(fitted.config),
        layout=fitted.config.layout,
        category=fitted.config.category_in(data),
    )
    with console.progress() as view:
        features = view.add_task("features", total=len(found.validation))
        sizes = Sizes(
            fitted,
            found.validation,
            watch=lambda done, total: view.update(features, completed=done, total=total),
        )
        ladder = view.add_task("sizes", total=None)
        best = solve(
            sizes, goal, watch=lambda done, total: view.update(ladder, completed=done, total=total)
        )
    if best is not None:
        best = next(size for size in sizes.table() if size.rows == best.rows)
    if wanted and best is not None and output is not None:
        small = shrink(fitted, best.rows, found)
        save_fitted(small, output, replace=force)
        metrics = small.metrics
    else:
        metrics = None
    if as_json:
        chosen = asdict(best) if wanted and best is not None else None
        console.emit_json(
            {"sizes": [asdict(s) for s in sizes.table()], "chosen": chosen, "metrics": metrics}
        )
    else:
        _print(sizes, best if wanted else None)
        if metrics is not None:
            show({found.category: metrics})
    if wanted and best is None:
        if not as_json:
            console.say("no size meets the goal; the Pareto front above is what can be had")
        raise typer.Exit(1)


def _print(sizes: Sizes, best: Size | None) -> None:
    titles = ["rows", "ratio", "kB", "F1", "image AUROC", "ms per image", ""]
    rows = [
        (
            str(size.rows),
            f"{size.ratio:.5f}",
            f"{size.bytes / 1024:.1f}",
            f"{size.f1:.4f}",
            f"{size.auroc:.4f}",
            f"{size.milliseconds:.2f}",
            ("Pareto" if size.pareto else "")
            + (" <- chosen" if best is not None and size.rows == best.rows else ""),
        )
        for size in sizes.table()
    ]
    console.table("Bank size on the validation images (search time of this machine)", titles, rows)


def parse_bytes(text: str) -> int:
    """``64k``, ``2M``, ``1G`` (powers of 1024) or a plain number."""
    unit = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(text[-1:].lower(), 1)
    digits = text[:-1] if unit > 1 else text
    try:
        return int(float(digits) * unit)
    except ValueError:
        raise UsageError(f"not a number of bytes: {text!r}", fix="500000, 64k or 2M") from None
