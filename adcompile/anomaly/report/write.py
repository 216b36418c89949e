"""The folder of a report: a page and one sub-folder per subject; for several categories an overview."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adcompile.anomaly.model_folder import Numbers
from adcompile.anomaly.report.gather import Gathering, ReportOptions
from adcompile.anomaly.report.page import overview_page, report_page
from adcompile.contract import Contract, Preprocess
from adcompile.errors import InputError

PAGE = "report.html"
_PLAIN = re.compile(r"[^\w.-]+")


def folder_name(name: str, taken: Sequence[str]) -> str:
    """*name* as a folder that no other name has, on file systems that ignore case too."""
    plain = base = _PLAIN.sub("_", name).strip(".") or "subject"
    used = {other.casefold() for other in taken}
    number = 1
    while plain.casefold() in used:
        number += 1
        plain = f"{base}_{number}"
    return plain


@dataclass
class Report:
    """The report on one category, in progress."""

    folder: Path
    options: ReportOptions
    category: str = ""
    gatherings: list[Gathering] = field(default_factory=list[Gathering])
    metrics: Mapping[str, Mapping[str, Numbers]] = field(
        default_factory=dict[str, Mapping[str, Numbers]]
    )

    def begin(self, name: str, contract: Contract, spec: Preprocess) -> Gathering:
        """Start collecting a subject."""
        plain = folder_name(name, [g.folder.name for g in self.gatherings])
        found = Gathering(name, self.folder / plain, contract, spec, self.options)
        self.gatherings.append(found)
        return found

    def finish(
        self,
        category: str,
        metrics: Mapping[str, Mapping[str, Numbers]],
        notes: Sequence[str] = (),
    ) -> None:
        """Write the page, and let go of the pictures."""
        self.category, self.metrics = category, metrics
        page = report_page(self.gatherings, metrics, category=category, notes=notes)
        (self.folder / PAGE).write_text(page, encoding="utf-8")
        for gathering in self.gatherings:
            gathering.close()


class Reports:
    """The reports of one run: one category in the folder itself, several in sub-folders of it."""

    def __init__(self, folder: Path, options: ReportOptions, *, several: bool) -> None:
        """Make the folder now, so that nothing is computed for one that cannot be written."""
        self.folder = folder
        self.options = options
        self.several = several
        self.made: list[Report] = []
        _make(folder)

    def begin(self, category: str) -> Report:
        """Start the report of a category."""
        name = folder_name(category, [report.folder.name for report in self.made])
        report = Report(self.folder / name if self.several else self.folder, self.options)
        _make(report.folder)
        self.made.append(report)
        return report

    def finish(self) -> Path:
        """The page to open: that of the only category, or the overview, written now."""
        path = self.folder / PAGE
        if self.several:
            rows = [
                (
                    report.category,
                    f"{report.folder.name}/{PAGE}",
                    report.gatherings,
                    report.metrics,
                )
                for report in self.made
            ]
            path.write_text(overview_page(rows), encoding="utf-8")
        return path


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            "cannot write the report", where=str(folder), why=error.strerror or str(error)
        ) from error
