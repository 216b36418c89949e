"""``adcompile eval --data``: image and pixel metrics of anomaly detectors, side by side."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.progress import Progress

from adcompile.anomaly.bundle_detector import open_bundle_detector
from adcompile.anomaly.detector import Detector, open_detector, run_samples
from adcompile.anomaly.fitting import measured
from adcompile.anomaly.layouts import categories
from adcompile.anomaly.model_folder import Metrics
from adcompile.anomaly.report.write import Report, Reports
from adcompile.anomaly.samples import DataSet, SplitOptions
from adcompile.anomaly.sources import read_data
from adcompile.anomaly.summary import averages
from adcompile.anomaly.threshold import is_anomalous
from adcompile.cli import console
from adcompile.cli.fit import show
from adcompile.cli.prepared import contract_of
from adcompile.errors import UsageError
from adcompile.manifest import MANIFEST
from adcompile.runtime.categories import category_names
from adcompile.steps.load import model_file


@contextmanager
def open_subject(path: Path, device: str, category: str = "") -> Generator[Detector, None, None]:
    """A fitted folder, an ONNX file, or a bundle (or a category of it). The contract of a file that
    declares none is read from its graph."""
    if path.is_dir() and (path / MANIFEST).is_file():
        with open_bundle_detector(path, device, category) as detector:
            yield detector
        return
    if not path.exists():
        raise UsageError("no such model or bundle", where=str(path))
    file = model_file(path)
    yield open_detector(file, lambda: contract_of(file))


@dataclass
class _Run:
    """What one evaluation has found so far: metrics by subject and category, flips by subject."""

    results: dict[str, dict[str, Metrics]] = field(default_factory=dict[str, dict[str, Metrics]])
    flips: dict[str, list[str]] = field(default_factory=dict[str, list[str]])


def evaluate_anomaly(
    subjects: Sequence[Path],
    data: Path,
    *,
    device: str = "auto",
    category: str = "",
    reports: Reports | None = None,
    as_json: bool = False,
) -> None:
    """Print metrics of every subject on all labelled images; decision flips against the first.

    *data* is one category, or a folder of categories, of which *category* picks one. Of a folder
    with one model per category (``fit --all``) each uses its own; a bundle uses its category of
    that name where it has one, and must have it when *category* asks for it. *reports* get
    pictures, tables and pages.
    """
    run = _Run()
    with console.progress() as view:
        for name, folder in _folders(data, category).items():
            found = _samples(folder)
            report = None if reports is None else reports.begin(found.category)
            _evaluate(run, found, _subjects(subjects, name, category), device, report, view)
            if report is not None:
                metrics = {label: r[found.category]["test"] for label, r in run.results.items()}
                report.finish(found.category, metrics, found.notes)
    page = None if reports is None else reports.finish()
    if as_json:
        told = _record(data, run.results, run.flips)
        console.emit_json(told | ({} if page is None else {"report": str(page)}))
        return
    _print(run.results, run.flips)
    if page is not None:
        console.say(f"report: {page}")


def _folders(data: Path, category: str) -> dict[str, Path]:
    """Category to folder; "" where the folder is the category itself."""
    names = categories(data) if data.is_dir() else ()
    if not category:
        return {name: data / name for name in names} or {"": data}
    if names and category not in names:
        raise UsageError(
            f"the data set has no category {category!r}",
            where=str(data),
            why="it has " + ", ".join(names[:20]),
        )
    return {category: data / category if names else data}


def _subjects(subjects: Sequence[Path], name: str, asked: str) -> list[tuple[Path, Path, str]]:
    """Every subject as it was given, the model to open, and the bundle's category to use."""
    found: list[tuple[Path, Path, str]] = []
    for subject in subjects:
        path = _model_of(subject, name)
        use = asked if path == subject else ""
        if not asked and name in category_names(path):
            use = name
        found.append((subject, path, use if (path / MANIFEST).is_file() else ""))
    return found


def _evaluate(
    run: _Run,
    data: DataSet,
    subjects: Sequence[tuple[Path, Path, str]],
    device: str,
    report: Report | None,
    view: Progress,
) -> None:
    """All subjects on the images of one category."""
    decisions: dict[str, list[bool]] = {}
    for subject, path, category in subjects:
        task = view.add_task(f"{subject.name} {data.category}", total=len(data.test))
        name = _label(subject, decisions)
        with open_subject(path, device, category) as detector:
            score = detector.contract.score
            if score is None or score.threshold is None:
                raise UsageError("the model has no threshold", where=str(path))
            seen = None
            if report is not None:
                seen = report.begin(name, detector.contract, detector.preprocess)
            start = time.perf_counter()
            outcome = run_samples(
                detector,
                data.test,
                detector.preprocess,
                watch=lambda done, total, t=task: view.update(t, completed=done, total=total),  # type: ignore[misc]
                see=None if seen is None else seen.see,
            )
            milliseconds = 1e3 * (time.perf_counter() - start) / max(len(data.test), 1)
        if seen is not None:
            seen.finish(outcome, data.category, model=str(path), milliseconds=milliseconds)
        decisions[name] = [bool(d) for d in is_anomalous(outcome.scores, score)]
        run.results.setdefault(name, {})[data.category] = {"test": measured(outcome, score)}
    for name, paths in _flips(decisions, data).items():
        run.flips.setdefault(name, []).extend(paths)


def _record(
    data: Path, results: dict[str, dict[str, Metrics]], flips: dict[str, list[str]]
) -> dict[str, object]:
    """As data: metrics by subject, and by category where there are several."""
    several = any(len(found) > 1 for found in results.values())
    plain = {
        name: found if several else next(iter(found.values())) for name, found in results.items()
    }
    record: dict[str, object] = {"data": data.name, "results": plain, "flips": flips}
    if several:
        record["average"] = {name: averages(found) for name, found in results.items()}
    return record


def _print(results: dict[str, dict[str, Metrics]], flips: dict[str, list[str]]) -> None:
    if any(len(found) > 1 for found in results.values()):
        for name, found in results.items():
            show(found, title=name)
    else:
        show({name: next(iter(found.values())) for name, found in results.items()}, average=False)
    for name, paths in flips.items():
        console.say(f"{name}: {len(paths)} decisions differ from the first")
        for path in paths[:20]:
            console.say(f"  {path}")


def _model_of(subject: Path, category: str) -> Path:
    """The subject's own model for a category, where it is a folder of such models."""
    inside = subject / category
    if not category or not inside.is_dir():
        return subject
    known = any((inside / name).is_file() for name in ("model.onnx", MANIFEST))
    return inside if known else subject


def _samples(data: Path) -> DataSet:
    """Every labelled image that no training used: validation and test together."""
    found = read_data(data, SplitOptions(validation="same"))
    test = found.test or found.validation
    if not test:
        raise UsageError(
            "there is no labelled image to evaluate",
            where=str(data),
            why=f"the layout is {found.layout!r}: normal images for training",
            fix="images in good/ and bad/ folders; `adcompile run` scores images without labels",
        )
    return replace(found, test=test)


def _flips(decisions: dict[str, list[bool]], data: DataSet) -> dict[str, list[str]]:
    names = list(decisions)
    first = decisions[names[0]]
    paths = [str(sample.path) for sample in data.test]
    return {
        name: [p for p, a, b in zip(paths, first, decisions[name], strict=True) if a != b]
        for name in names[1:]
    }


def _label(subject: Path, taken: Mapping[str, object]) -> str:
    name = subject.name or str(subject)
    while name in taken:
        name += "'"
    return name
