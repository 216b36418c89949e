"""``adcompile eval --coco``: average precision of detectors on annotated images."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adcompile.cli import console
from adcompile.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adcompile.cli.subjects import Column, Subject, Subjects
    from adcompile.detection.evaluate import Detector, Result


LOW_SCORE = 0.001  # from here on, detections make the curves of average precision whole


@dataclass(frozen=True)
class AnnotatedImages:
    """The images, what is on them, and how detections are counted. *classes* names the labels of models
    that do not; *predictions* is a folder for COCO result files."""

    coco: Path
    images: Path
    max_samples: int | None
    classes: Mapping[int, str] | None
    min_score: float
    skip_missing: bool
    predictions: Path | None


def evaluate_detections(subjects: Subjects, data: AnnotatedImages, *, as_json: bool) -> None:
    """Print COCO's numbers of every subject, and what each loses against the first."""
    from adcompile.detection.evaluate import side_by_side

    results = {column.label: _evaluate(subjects, column, data) for column in subjects.columns()}
    if as_json:
        console.emit_json({label: result.record() for label, result in results.items()})
        return
    labels = list(results)
    columns = ["metric (%)", *labels, *(f"loss of {label}" for label in labels[1:])]
    count = next(iter(results.values())).images
    console.table(f"COCO average precision, {count} images", columns, side_by_side(results))
    _warn_of_a_cut(subjects)


def _warn_of_a_cut(subjects: Subjects) -> None:
    """Say when the bundles' decoder leaves out what average precision counts."""
    from adcompile.cli.reference import decoding_contract

    contract = decoding_contract(subjects.paths)
    decoder = None if contract is None else contract.decoder
    if decoder is not None and decoder.min_score > LOW_SCORE:
        console.say(
            f"note: the bundle's decoder leaves out scores below {decoder.min_score:g}, which average "
            f"precision counts: build with --decoder '{decoder.preset}{{min-score={LOW_SCORE:g}}}'"
        )


def _evaluate(subjects: Subjects, column: Column, data: AnnotatedImages) -> Result:
    from adcompile.detection.evaluate import evaluate

    target = None if data.predictions is None else data.predictions / _file(column.label)
    with ExitStack() as stack, console.progress() as view:
        subject = subjects.open(column, stack)
        task = view.add_task(column.label, total=None)
        return evaluate(
            _detector(subject, column.path),
            data.coco,
            data.images,
            data.max_samples,
            classes=data.classes or dict(enumerate(subject.contract.classes)) or None,
            min_score=data.min_score,
            skip_missing=data.skip_missing,
            predictions_to=target,
            progress=lambda done, total: view.update(task, completed=done, total=total),
        )


def _detector(subject: Subject, path: Path) -> Detector:
    """As something that takes any picture."""
    from adcompile.detection.fixed import FixedSize

    rules = subject.contract.inputs
    if len(subject.inputs) != 1 or subject.inputs[0].name not in rules:
        raise UsageError("not a detector of images", where=str(path))
    name = subject.inputs[0].name
    return FixedSize(lambda tensor: subject.run({name: tensor}), rules[name])


def _file(label: str) -> str:
    """A file name that is safe anywhere."""
    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in label)
    return f"{stem.removesuffix('.onnx')}.json"
