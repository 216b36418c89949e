"""``adcompile eval --images`` without annotations: does the bundle still say what the model says?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from adcompile.cli import console
from adcompile.errors import UsageError

if TYPE_CHECKING:
    from adcompile.check.agreement import Agreement
    from adcompile.cli.subjects import Subject, Subjects


def evaluate_agreement(
    subjects: Subjects,
    images: Path,
    *,
    max_samples: int | None,
    classes: Mapping[int, str] | None,
    least: float,
    as_json: bool,
) -> None:
    """Run every subject on the same input tensors and print how far it agrees with the first.

    The tensors are made by the contract of the first bundle, so that pre-processing that differs
    between files is not counted as an error of the compiled model. In sub-folders named after
    classes, the share of right answers is measured too. Exits with 1 below *least*.
    """
    from adcompile.check.agreement import find_sources

    every = find_sources(images)
    sources = every[:max_samples]
    with ExitStack() as stack, console.progress() as view:
        opened = [subjects.open(column, stack) for column in subjects.columns()]
        if len(opened) < 2:
            raise UsageError(
                "nothing to compare with",
                fix=f"adcompile eval MODEL.onnx {subjects.paths[0]} --images {images}",
            )
        judge = next((subject for subject in opened if subject.is_bundle), opened[0])
        known = dict(enumerate(judge.contract.classes)) if classes is None else classes
        labels = _labels([home for _, home in every], known)
        measured = _Measured(opened, judge, labels, named=bool(known))
        task = view.add_task("eval", total=len(sources))
        for path, home in sources:
            measured.add(path, home)
            view.advance(task)
    first, results, truth = opened[0].label, measured.results, measured.truth
    lowest = min(result.lowest() for result in results.values())
    if as_json:
        console.emit_json(
            {
                "reference": first,
                "images": len(sources),
                "lowest": lowest,
                "agreement": {k: [row.record() for row in v.rows()] for k, v in results.items()},
                "accuracy": {k: [row.record() for row in v.rows()] for k, v in truth.items()},
            }
        )
    else:
        _show(first, len(sources), results, truth)
        if lowest < least:
            console.say(f"below --min-agreement: {lowest:.4f} < {least:g}")
    if lowest < least:
        raise typer.Exit(1)


@dataclass
class _Measured:
    """What was found so far, by label of the subject: agreement with the first one, and right answers
    where an image's folder says the class (*named*: after the classes, not only one folder each)."""

    subjects: Sequence[Subject]
    judge: Subject
    labels: dict[str, int]
    named: bool
    results: dict[str, Agreement] = field(default_factory=dict[str, "Agreement"])
    truth: dict[str, Agreement] = field(default_factory=dict[str, "Agreement"])

    def add(self, path: Path, home: str) -> None:
        """Run every subject on one image of folder *home* ("" for none)."""
        from adcompile.check.agreement import Agreement, agreement, correctness, has_classes
        from adcompile.runtime.inputs import make_feeds

        first, judge = self.subjects[0], self.judge
        feeds, _ = make_feeds(judge.inputs, judge.contract, path)
        name = f"{home}/{path.name}" if home else path.name
        expected = first.run(feeds)
        if not self.named and not has_classes(expected, len(self.labels)):
            self.labels = {}  # folders of another kind
        for subject in self.subjects:
            got = expected if subject is first else subject.run(feeds)
            if subject is not first:
                agreed = agreement(expected, got, judge.contract.roles)
                self.results.setdefault(subject.label, Agreement()).add(name, agreed)
            if home in self.labels:
                right = correctness(got, self.labels[home])
                self.truth.setdefault(subject.label, Agreement()).add(name, right)


def _show(
    reference: str,
    count: int,
    results: Mapping[str, Agreement],
    truth: Mapping[str, Agreement],
) -> None:
    console.table(
        f"Agreement with {reference} on {count} images",
        ("subject", "output", "measure", "mean", "worst", "on"),
        [
            (label, r.output, r.measure, f"{r.mean:.4f}", f"{r.worst:.4f}", r.worst_image)
            for label, result in results.items()
            for r in result.rows()
        ],
    )
    rows = [(label, r) for label, result in truth.items() for r in result.rows()]
    if rows:
        columns = ("subject", "output", "measure", "share")
        cells = [(label, r.output, r.measure, f"{r.mean:.4f}") for label, r in rows]
        console.table("Against the names of the sub-folders", columns, cells)


def _labels(homes: Sequence[str], classes: Mapping[int, str]) -> dict[str, int]:
    """Sub-folder to label. Without names of classes, folders are numbered in sorted order."""
    names = sorted({home for home in homes if home})
    by_name = {name: label for label, name in classes.items()}
    if not by_name:
        return {name: number for number, name in enumerate(names)}
    strange = [name for name in names if name not in by_name]
    if strange:
        raise UsageError(
            f"no class is called {strange[0]!r}",
            why=f"a sub-folder is; the model's classes are {', '.join(list(by_name)[:8])} …",
            fix="name the sub-folders like the classes, or give --classes",
        )
    return {name: by_name[name] for name in names}
