"""The terminal: tables, progress on stderr, JSON on stdout. Nothing else in the package prints."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

PIPE_WIDTH = 160  # columns where there is no terminal: names in tables stay whole for grep


def _width() -> int | None:
    """Columns of the output; None leaves it to the terminal."""
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH


out = Console(highlight=False, soft_wrap=False, width=_width())
err = Console(stderr=True, highlight=False)


def emit_json(data: object) -> None:
    """Write *data* as JSON to standard output."""
    sys.stdout.write(json.dumps(data, indent=2, sort_keys=True, default=str) + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; text in cells is shown as it is (no markup)."""
    view = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        view.add_column(column, overflow="fold")
    for row in rows:
        view.add_row(*(str(cell).replace("[", "\\[") for cell in row))
    out.print(view)


def say(text: str) -> None:
    """Print one line for the user on standard output; it stays one line, so that it can be copied."""
    out.print(text, markup=False, soft_wrap=True)


@contextmanager
def progress(title: str) -> Generator[Progress]:
    """A progress display on stderr; add tasks to it. Quiet when stderr is not a terminal."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as view:
        view.add_task(title, total=None, visible=False)
        yield view
