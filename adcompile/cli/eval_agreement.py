"""``adcompile eval --images`` without annotations: does the bundle still say what the model says?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from adcompile.cli import console
from adcompile.errors import UsageError

if TYPE_CHECKING:
    from adcompile.check.agreement import Agreement
    from adcompile.contract import Contract
    from adcompile.manifest import TensorSpec
    from adcompile.runtime.executor import Array


@dataclass(frozen=True)
class Subject:
    """Something that can be run: a bundle in one device mode, or an ONNX file."""

    label: str
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    inputs: Sequence[TensorSpec]
    contract: Contract
    is_bundle: bool


def _apart(subjects: Sequence[Subject]) -> list[Subject]:
    """The same with a label of its own for each."""
    found: dict[str, Subject] = {}
    for subject in subjects:
        label = subject.label
        while label in found:
            label += "'"
        found[label] = replace(subject, label=label)
    return list(found.values())


def evaluate_agreement(
    subjects: Sequence[Path],
    images: Path,
    modes: Callable[[Path], list[tuple[str, str]]],
    options: dict[str, str],
    *,
    max_samples: int | None,
    classes: Mapping[int, str] | None,
    decoder: str | None,
    least: float,
    as_json: bool,
) -> None:
    """Run every subject on the same input tensors and print how far it agrees with the first.

    The tensors are made by the contract of the first bundle, so that pre-processing that differs
    between files is not counted as an error of the compiled model. In sub-folders named after
    classes, the share of right answers is measured too. Exits with 1 below *least*.
    """
    from adcompile.check.agreement import (
        Agreement,
        agreement,
        correctness,
        find_sources,
        has_classes,
    )
    from adcompile.cli.reference import decoding_contract
    from adcompile.runtime.inputs import make_feeds

    every = find_sources(images)
    decoding = decoding_contract(subjects)
    sources = every[:max_samples]
    with ExitStack() as stack, console.progress() as view:
        opened = [
            _open(path, label, mode, options, stack, decoder, decoding)
            for path in subjects
            for label, mode in modes(path)
        ]
        opened = _apart(opened)
        if len(opened) < 2:
            raise UsageError(
                "nothing to compare with",
                fix=f"adcompile eval MODEL.onnx {subjects[0]} --images {images}",
            )
        first = opened[0]
        judge = next((subject for subject in opened if subject.is_bundle), first)
        known = dict(enumerate(judge.contract.classes)) if classes is None else classes
        named = bool(known)
        labels = _labels([name for _, name in every], known)
        results: dict[str, Agreement] = {}
        truth: dict[str, Agreement] = {}
        task = view.add_task("eval", total=len(sources))
        for path, home in sources:
            feeds, _ = make_feeds(judge.inputs, judge.contract, path)
            name = f"{home}/{path.name}" if home else path.name
            expected = first.run(feeds)
            if labels and not named and not has_classes(expected, len(labels)):
                labels = {}  # folders of another kind
            for subject in opened:
                got = expected if subject is first else subject.run(feeds)
                if subject is not first:
                    measured = agreement(expected, got, judge.contract.roles)
                    results.setdefault(subject.label, Agreement()).add(name, measured)
                if home in labels:
                    right = correctness(got, labels[home])
                    truth.setdefault(subject.label, Agreement()).add(name, right)
            view.advance(task)
    lowest = min(result.lowest() for result in results.values())
    if as_json:
        console.emit_json(
            {
                "reference": first.label,
                "images": len(sources),
                "lowest": lowest,
                "agreement": {k: [row.record() for row in v.rows()] for k, v in results.items()},
                "accuracy": {k: [row.record() for row in v.rows()] for k, v in truth.items()},
            }
        )
    else:
        _show(first.label, len(sources), results, truth)
        if lowest < least:
            console.say(f"below --min-agreement: {lowest:.4f} < {least:g}")
    if lowest < least:
        raise typer.Exit(1)


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


def _open(
    path: Path,
    label: str,
    mode: str,
    options: dict[str, str],
    stack: ExitStack,
    decoder: str | None,
    given: Contract | None,
) -> Subject:
    from adcompile.manifest import MANIFEST

    if (path / MANIFEST).is_file():
        from adcompile.runtime.bundle import load

        bundle = stack.enter_context(load(path, mode, options=options))
        contract = bundle.manifest.contract
        return Subject(label, lambda f: bundle.run(f).outputs, bundle.inputs, contract, True)
    from adcompile.cli.reference import open_reference

    file = path / "model.onnx" if path.is_dir() else path
    session, specs, contract = open_reference(file, decoder, given)
    return Subject(label, session.run, specs, contract, False)
