"""The terminal: tables, progress on stderr, JSON on stdout. Nothing else in the package prints."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 160  # columns where there is no terminal: names in tables stay whole for grep
SILENCE = 30.0  # seconds after which a log without a terminal gets a line of progress


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


class _Count(ProgressColumn):
    """``3/12``; nothing where the end is not known."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}")


@contextmanager
def progress() -> Generator[Progress]:
    """A progress display on stderr; add tasks to it. Quiet when stderr is not a terminal."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        _Count(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as view:
        yield view


@contextmanager
def watching(what: str) -> Generator[Callable[[str], None]]:
    """A function to call with every new step, *what* being the first.

    A terminal shows the step with a clock; a log file gets a line when nothing was said for long.
    """
    said = time.monotonic()
    with progress() as view:
        task = view.add_task(what, total=None)

        def watch(step: str) -> None:
            nonlocal said
            view.update(task, description=step)
            if not err.is_terminal and time.monotonic() - said >= SILENCE:
                said = time.monotonic()
                err.print(step, markup=False, soft_wrap=True)

        yield watch


@contextmanager
def phases(subject: str) -> Generator[Callable[[str, int, int], None]]:
    """A function to call with a phase's name, what is done of it and how much it is; a bar each."""
    with progress() as view:
        tasks: dict[str, TaskID] = {}

        def watch(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = view.add_task(f"{subject}: {what}", total=total)
            view.update(tasks[what], completed=done, total=total)

        yield watch
