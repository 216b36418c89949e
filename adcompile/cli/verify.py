"""``adcompile verify``: compare a bundle with its golden data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.cli import console
from adcompile.errors import UsageError

if TYPE_CHECKING:
    from adcompile.check.compare import Comparison
    from adcompile.check.diagnose import Diagnosis
    from adcompile.check.verify import Verification


def command(
    bundle: Annotated[
        Path, typer.Argument(help="bundle, packed or not, or a reproducer of an earlier failure")
    ],
    device: Annotated[str, typer.Option(help="auto, simulate or require")] = "auto",
    samples: Annotated[int | None, typer.Option(help="use at most this many", min=1)] = None,
    parts: Annotated[bool, typer.Option(help="also run every part by itself")] = True,
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
    model: Annotated[
        Path | None, typer.Option(help="source model: lets a failure be traced to a rewrite")
    ] = None,
    trace: Annotated[bool, typer.Option(help="narrow a failure down to a node or pass")] = True,
    reproducer: Annotated[
        Path | None, typer.Option(help="folder for the smallest failing graph")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Check files and hashes of BUNDLE and compare its results with the golden data, by role.

    A detector whose constants were measured again is also held against its float model.
    """
    from adcompile.check.reproducer import is_reproducer
    from adcompile.check.verify import verify_bundle
    from adcompile.unpack import bundle_folder

    if reproducer is not None and not trace:
        raise UsageError("--reproducer is a result of the trace", fix="leave out --no-trace")
    folder = bundle_folder(bundle)
    if is_reproducer(folder):
        _replay(folder, json)
        return
    with console.watching("verify") as watch:
        outcome = verify_bundle(
            folder,
            device=device,
            samples=samples,
            isolate=parts,
            threads=threads,
            watch=watch,
        )
        found = None
        if trace and not outcome.reproduces:
            watch("narrow down")
            given = bundle.resolve()
            beside = given.with_name(given.name + ".reproducer")
            found = _trace(folder, outcome, reproducer or beside, model)
    if json:
        traced = {} if found is None else {"diagnosis": found.record()}
        console.emit_json({**outcome.record(), **traced})
    else:
        show(outcome)
        if found is not None:
            console.say(f"cause: {found.text}")
            if found.reproducer is not None:
                place = shlex.quote(str(found.reproducer))
                console.say(f"reproducer: adcompile verify {place}")
    if not outcome.ok:
        raise typer.Exit(1)


def _trace(folder: Path, outcome: Verification, reproducer: Path, model: Path | None) -> Diagnosis:
    from adcompile.check.diagnose import diagnose
    from adcompile.ir.model_io import load_model
    from adcompile.steps.load import model_file

    source = None if model is None else load_model(model_file(model))
    return diagnose(folder, outcome, reproducer, model=source)


def _replay(folder: Path, json: bool) -> None:
    from adcompile.check.reproducer import replay

    record, results = replay(folder)
    good = all(each.ok for each in results)
    if json:
        rows = [each.record() for each in results]
        console.emit_json({"ok": good, "culprit": record.culprit, "outputs": rows})
    else:
        console.say(record.title)
        for each in results:
            verdict = "ok" if each.ok else "FAILED"
            numbers = ", ".join(f"{k} {v:.4g}" for k, v in each.metrics.items())
            console.say(f"  {each.name}: {verdict} {numbers} {each.detail}")
        console.say("the failure is gone" if good else "the failure is there")
    if not good:
        raise typer.Exit(1)


def show(outcome: Verification) -> None:
    """Print both tables and the verdict."""
    rows = [
        (
            str(number),
            each.name,
            each.role,
            _number(each.metrics.get("max_abs")),
            _decibels(each.metrics.get("snr_db")),
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
    for note in outcome.notes:
        console.say(f"note: {note}")
    for problem in outcome.problems:
        console.say(f"problem: {problem}")
    if outcome.first_bad:
        console.say(f"first bad part: {outcome.first_bad}")
    if outcome.accuracy is not None:
        console.say(outcome.accuracy.text)
    console.say(f"{'ok' if outcome.ok else 'FAILED'}: {outcome.samples} samples")


def _pair(comparison: Comparison | None) -> tuple[str, str]:
    if comparison is None:
        return "-", "-"
    if not comparison.metrics:
        return comparison.detail, "-"
    metrics = comparison.metrics
    return _number(metrics.get("max_abs")), _decibels(metrics.get("snr_db"))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _decibels(value: float | None) -> str:
    from adcompile.check.compare import SNR_CAP

    return "equal" if value is not None and value >= SNR_CAP else _number(value)
