"""``adcompile eval --data``: image and pixel metrics of anomaly detectors, side by side."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from adcompile.anomaly.bundle_detector import open_bundle_detector
from adcompile.anomaly.detector import Detector, Outcome, open_detector, run_samples
from adcompile.anomaly.fitting import measured
from adcompile.anomaly.layouts import categories, read_folder
from adcompile.anomaly.model_folder import Metrics
from adcompile.anomaly.samples import DataSet, SplitOptions
from adcompile.anomaly.summary import averages
from adcompile.anomaly.threshold import is_anomalous
from adcompile.cli import console
from adcompile.cli.fit import show
from adcompile.contract import Score
from adcompile.errors import UsageError
from adcompile.manifest import MANIFEST


@contextmanager
def open_subject(path: Path, device: str, category: str = "") -> Generator[Detector, None, None]:
    """A fitted folder, an ONNX file with our contract, or a bundle (or a category of it)."""
    if path.is_dir() and (path / MANIFEST).is_file():
        with open_bundle_detector(path, device, category) as detector:
            yield detector
        return
    if not path.exists():
        raise UsageError("no such model or bundle", where=str(path))
    yield open_detector(path)


def evaluate_anomaly(
    subjects: Sequence[Path], data: Path, *, device: str = "auto", as_json: bool = False
) -> None:
    """Print metrics of every subject on all labelled images; decision flips against the first.

    *data* is one category, or a folder of categories. In the second case a subject that is a
    folder with one model per category (``fit --all``) is used model by model.
    """
    names = categories(data) if data.is_dir() else ()
    folders = {name: data / name for name in names} or {"": data}
    results: dict[str, dict[str, Metrics]] = {}
    flips: dict[str, list[str]] = {}
    with console.progress("eval") as view:
        for category, folder in folders.items():
            found = _samples(folder)
            decisions: dict[str, list[bool]] = {}
            for subject in subjects:
                task = view.add_task(f"{subject.name} {category}", total=len(found.test))
                outcome, score = _run(
                    _model_of(subject, category),
                    found,
                    device,
                    lambda done, total, t=task: view.update(t, completed=done, total=total),  # type: ignore[misc]
                )
                name = _label(subject, decisions)
                decisions[name] = [bool(d) for d in is_anomalous(outcome.scores, score)]
                results.setdefault(name, {})[found.category] = {"test": measured(outcome, score)}
            for name, paths in _flips(decisions, found).items():
                flips.setdefault(name, []).extend(paths)
    if as_json:
        console.emit_json(_record(data, results, flips))
        return
    _print(results, flips)


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


def _run(
    path: Path, data: DataSet, device: str, watch: Callable[[int, int], None]
) -> tuple[Outcome, Score]:
    with open_subject(path, device) as detector:
        outcome = run_samples(detector, data.test, detector.preprocess, watch=watch)
        score = detector.contract.score
    if score is None or score.threshold is None:
        raise UsageError("the model has no threshold", where=str(path))
    return outcome, score


def _samples(data: Path) -> DataSet:
    """Every labelled image that no training used: validation and test together."""
    found = read_folder(data, SplitOptions(validation="same"))
    return replace(found, test=found.test or found.validation)


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
