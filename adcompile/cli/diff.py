"""``adcompile diff``: what changed between two bundles, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.cli import console
from adcompile.cli.options import parse_words
from adcompile.errors import UsageError

if TYPE_CHECKING:
    from adcompile.changes.record import Agreed, Diff, Section

MOST = 12  # rows of a section in the terminal


def command(
    old: Annotated[Path, typer.Argument(help="bundle to compare with, packed or not")],
    new: Annotated[Path, typer.Argument(help="bundle that may have changed")],
    images: Annotated[
        Path | None,
        typer.Option(help="image, .npy/.npz, or folder: run both on it and compare the outputs"),
    ] = None,
    min_agreement: Annotated[
        float, typer.Option(help="with --images: exit 1 below this share of agreement, 0 … 1")
    ] = 0.0,
    device: Annotated[str, typer.Option(help="for --images: auto, simulate or require")] = "auto",
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            help="exit 1 when this changed: placement, precision, accuracy (got worse), any (of "
            "what matters), or another section's name (repeat, or separate with commas)"
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="also write one self-contained page")] = None,
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Compare two bundles: model, target, rewrites, placement, parts, precision, quantization, banks,
    accuracy, files, tools.

    The first line says whether anything that matters changed; a section follows only where something
    differs. Exit code 0, also for differences, unless --fail-on or --min-agreement says otherwise.
    """
    from adcompile.changes.api import diff
    from adcompile.changes.page import diff_page
    from adcompile.fileset import write_text

    topics = _topics(fail_on or [])
    if min_agreement and images is None:
        raise UsageError("--min-agreement needs --images DIR")
    with console.watching("diff"):
        found = diff(old, new, images=images, device=device)
    if html is not None:
        write_text(html, diff_page(found))
    failing = found.failing(topics)
    lowest = 1.0 if found.agreement is None else found.agreement.lowest or 0.0
    good = not failing and lowest >= min_agreement
    if json:
        console.emit_json({**found.record(), "ok": good, "failing": list(failing)})
    else:
        _show(found)
        if failing:
            console.say(f"--fail-on: {', '.join(failing)} changed")
        if lowest < min_agreement:
            console.say(f"below --min-agreement: {lowest:.4f} < {min_agreement:g}")
    if not good:
        raise typer.Exit(1)


def _topics(given: list[str]) -> list[str]:
    from adcompile.changes.record import TOPICS

    topics = parse_words(given)
    for topic in topics:
        if topic not in {*TOPICS, "any"}:
            fix = f"any, or some of {', '.join(TOPICS)}"
            raise UsageError(f"--fail-on {topic!r} is no section", fix=fix)
    return topics


def _show(found: Diff) -> None:
    console.say(found.headline)
    for section in found.sections:
        _show_section(section, _names(found))
    if found.agreement is not None:
        _show_agreement(found.agreement)


def _names(found: Diff) -> tuple[str, str]:
    """The folders' names, whole paths where these are alike."""
    old, new = found.old.resolve(), found.new.resolve()
    return (old.name, new.name) if old.name != new.name else (str(found.old), str(found.new))


def _show_section(section: Section, names: tuple[str, str]) -> None:
    from adcompile.changes.page import Cells

    console.say("")
    rows = [Cells.of(change) for change in section.changes[:MOST]]
    columns = {
        "what": [row.subject for row in rows],
        names[0]: [row.old for row in rows],
        names[1]: [row.new for row in rows],
        "ratio": [row.ratio for row in rows],
        "": [row.verdict for row in rows],
        "remark": [row.note for row in rows],
    }
    used = {name: cells for name, cells in columns.items() if any(cells)}
    if rows:
        console.table(section.title, list(used), zip(*used.values(), strict=True))
    else:
        console.say(section.title)
    if len(section.changes) > MOST:
        console.say(f"… and {len(section.changes) - MOST} more (--json and --html list all)")
    for note in section.notes:
        console.say(f"note: {note}")


def _show_agreement(found: Agreed) -> None:
    console.say("")
    if found.note:
        console.say(f"the outputs cannot be compared: {found.note}")
        return
    console.table(
        f"Both on the same images ({found.images})",
        ("output", "measure", "mean", "worst", "on"),
        [
            (r.output, r.measure, f"{r.mean:.4f}", f"{r.worst:.4f}", r.worst_image)
            for r in found.rows
        ],
    )
