"""``adcompile eval --data``: image and pixel metrics of anomaly detectors, side by side."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from adcompile.anomaly.bundle_detector import open_bundle_detector
from adcompile.anomaly.detector import Detector, Outcome, open_detector, run_samples
from adcompile.anomaly.fitting import measured
from adcompile.anomaly.layouts import categories, read_folder
from adcompile.anomaly.model_folder import Metrics
from adcompile.anomaly.samples import DataSet, SplitOptions
from adcompile.anomaly.threshold import is_anomalous
from adcompile.cli import console
from adcompile.cli.fit import show
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
    """Print metrics of every subject on all labelled images; decision flips against the first."""
    found = _samples(data)
    results: dict[str, Metrics] = {}
    decisions: dict[str, list[bool]] = {}
    outcomes: list[Outcome] = []
    with console.progress("eval") as view:
        for subject in subjects:
            task = view.add_task(subject.name, total=len(found.test))
            with open_subject(subject, device) as detector:
                outcome = run_samples(
                    detector,
                    found.test,
                    detector.preprocess,
                    watch=lambda done, total, t=task: view.update(t, completed=done, total=total),  # type: ignore[misc]
                )
                score = detector.contract.score
            if score is None or score.threshold is None:
                raise UsageError("the model has no threshold", where=str(subject))
            name = _label(subject, results)
            results[name] = {"test": measured(outcome, score)}
            decisions[name] = [bool(d) for d in is_anomalous(outcome.scores, score)]
            outcomes.append(outcome)
    flips = _flips(decisions, outcomes[0])
    if as_json:
        console.emit_json({"data": found.category, "results": results, "flips": flips})
        return
    show(results, average=False)
    for name, paths in flips.items():
        console.say(f"{name}: {len(paths)} decisions differ from the first")
        for path in paths[:20]:
            console.say(f"  {path}")


def _samples(data: Path) -> DataSet:
    """Every labelled image that no training used: validation and test together."""
    if data.is_dir() and categories(data):
        raise UsageError(
            "the folder holds several categories",
            where=str(data),
            fix=f"give one: {data}/{categories(data)[0]}",
        )
    found = read_folder(data, SplitOptions(validation="same"))
    return replace(found, test=found.test or found.validation)


def _flips(decisions: dict[str, list[bool]], outcome: Outcome) -> dict[str, list[str]]:
    names = list(decisions)
    first = decisions[names[0]]
    paths = [str(image.sample.path) for image in outcome.images]
    return {
        name: [p for p, a, b in zip(paths, first, decisions[name], strict=True) if a != b]
        for name in names[1:]
    }


def _label(subject: Path, taken: dict[str, Metrics]) -> str:
    name = subject.name or str(subject)
    while name in taken:
        name += "'"
    return name
