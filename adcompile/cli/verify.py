"""``adcompile verify``: compare a bundle with its golden data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adcompile.cli import console


def command(
    bundle: Annotated[Path, typer.Argument(help="bundle folder")],
    device: Annotated[str, typer.Option(help="auto, simulate or require")] = "auto",
    samples: Annotated[int | None, typer.Option(help="use at most this many", min=1)] = None,
    parts: Annotated[bool, typer.Option(help="also run every part by itself")] = True,
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Check files and hashes of BUNDLE and compare its results with the golden data, by role."""
    from adcompile.check.verify import verify_bundle

    with console.progress("verify") as view:
        task = view.add_task("verify", total=None)
        outcome = verify_bundle(
            bundle,
            device=device,
            samples=samples,
            isolate=parts,
            threads=threads,
            watch=lambda text: view.update(task, description=text),
        )
    if json:
        console.emit_json(outcome.record())
    else:
        show(outcome)
    if not outcome.ok:
        raise typer.Exit(1)


def show(outcome: object) -> None:
    """Print both tables and the verdict."""
    from adcompile.check.verify import Verification

    assert isinstance(outcome, Verification)
    rows = [
        (
            str(number),
            each.name,
            each.role,
            _number(each.metrics.get("max_abs")),
            _number(each.metrics.get("snr_db")),
            each.tolerance,
            "ok" if each.ok else "FAILED",
            each.detail,
        )
        for number, each in outcome.outputs
    ]
    columns = ("sample", "output", "role", "max |diff|", "SNR dB", "tolerance", "", "remark")
    console.table("Outputs against the reference", columns, rows)
    console.table(
        "Parts: alone on the reference's inputs, and in the whole run",
        ("part", "runs on", "alone", "dB", "in run", "dB", "tolerance", ""),
        [
            (
                part.name,
                part.placement + (" (simulated)" if part.simulated else ""),
                *_pair(part.isolated),
                *_pair(part.cumulative),
                "" if part.isolated is None else part.isolated.tolerance,
                "ok" if part.ok else "FAILED",
            )
            for part in outcome.parts
        ],
    )
    for where in dict.fromkeys(part.where for part in outcome.parts):
        console.say(f"executed by {where}")
    for problem in outcome.problems:
        console.say(f"problem: {problem}")
    if outcome.first_bad:
        console.say(f"first bad part: {outcome.first_bad}")
    console.say(f"{'ok' if outcome.ok else 'FAILED'}: {outcome.samples} samples")


def _pair(comparison: object) -> tuple[str, str]:
    from adcompile.check.compare import Comparison

    if not isinstance(comparison, Comparison):
        return "-", "-"
    if not comparison.metrics:
        return comparison.detail, "-"
    metrics = comparison.metrics
    return _number(metrics.get("max_abs")), _number(metrics.get("snr_db"))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return "equal" if value >= 300.0 else f"{value:.4g}"
