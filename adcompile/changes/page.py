"""A comparison as one HTML file: no script, no request, light and dark, usable from the keyboard."""

from __future__ import annotations

from dataclasses import dataclass

from adcompile.changes.record import Change, Diff, Value
from adcompile.check.compare import SNR_CAP
from adcompile.render import render_page

FIRST = 20  # rows of a section that are seen without opening the rest


@dataclass(frozen=True, slots=True)
class Cells:
    """A change as the cells of a table."""

    subject: str
    old: str
    new: str
    ratio: str
    verdict: str
    note: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, change: Change) -> Cells:
        """Numbers rounded and with separators, a dash where there is nothing."""
        return cls(
            change.subject,
            _value(change.subject, change.old),
            _value(change.subject, change.new),
            "" if change.ratio is None else f"x {change.ratio:.4g}",
            change.verdict,
            change.note,
            change.names,
        )


def diff_page(found: Diff) -> str:
    """The HTML text of *found*; the same comparison gives the same bytes."""
    return render_page(
        "report/diff.html.j2",
        {
            "diff": found,
            "names": [folder.resolve().name for folder in (found.old, found.new)],
            "sections": [(each, [Cells.of(c) for c in each.changes]) for each in found.sections],
            "first": FIRST,
        },
    )


def _value(subject: str, value: Value) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        return value
    return "equal" if subject.endswith("snr_db") and value >= SNR_CAP else f"{value:.6g}"
