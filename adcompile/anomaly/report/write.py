"""The folder of a report: one sub-folder per subject, and ``report.html`` for all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from adcompile.anomaly.model_folder import Numbers
from adcompile.anomaly.report.gather import Gathering, ReportOptions
from adcompile.anomaly.report.page import report_page
from adcompile.contract import Contract, Preprocess
from adcompile.errors import InputError

PAGE = "report.html"
_PLAIN = re.compile(r"[^\w.-]+")


class Report:
    """A report in progress."""

    def __init__(self, folder: Path, options: ReportOptions) -> None:
        """Make the folder now, so that nothing is computed for one that cannot be written."""
        self.folder = folder
        self.options = options
        self.gatherings: list[Gathering] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                "cannot write the report", where=str(folder), why=error.strerror or str(error)
            ) from error

    def begin(self, name: str, contract: Contract, spec: Preprocess) -> Gathering:
        """Start collecting a subject."""
        taken = {g.folder.name.casefold() for g in self.gatherings}
        plain = base = _PLAIN.sub("_", name).strip(".") or "subject"
        number = 1
        while plain.casefold() in taken:
            number += 1
            plain = f"{base}_{number}"
        found = Gathering(name, self.folder / plain, contract, spec, self.options)
        self.gatherings.append(found)
        return found

    def finish(
        self,
        category: str,
        metrics: Mapping[str, Mapping[str, Numbers]],
        notes: Sequence[str] = (),
    ) -> Path:
        """Write the page; returns its path."""
        page = report_page(self.gatherings, metrics, category=category, notes=notes)
        path = self.folder / PAGE
        path.write_text(page, encoding="utf-8")
        return path
