"""Result tables of the reference systems (columns of R0, R1 and R3), and maps as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from adcompile.anomaly.maps import Array
from adcompile.anomaly.metrics import Confusion
from adcompile.anomaly.report.rows import PixelRow, Row
from adcompile.anomaly.threshold import raw_threshold
from adcompile.contract import Score
from adcompile.errors import InputError

R3_COLUMNS = (
    "index", "category", "data_type", "filepath", "filename", "ext", "gt", "pred", "score",
    "score_norm", "image_threshold", "image_threshold_norm", "pixel_threshold",
    "pixel_threshold_norm", "confusion_metrix",
)  # fmt: skip
"""R3's columns, in its spelling."""
PIXEL_COLUMNS = ("index", "filepath", "F1", "AUROC", "recall", "accuracy", "precision")
R1_COLUMNS = ("file", "raw_score", "norm_score", "pred", "label")
UTF8_BOM = "utf-8-sig"
SHIFT_JIS = "shift_jis"


def write_r3(path: Path, rows: Sequence[Row], score: Score, category: str) -> None:
    """R3's ``test_outputs.csv`` (``pred_outputs.csv`` without labels): UTF-8 with a byte order mark."""
    numbers = (
        _number(score.threshold),
        _number(score.decision),
        _number(raw_threshold(score, pixel=True)),
        _number(score.decision),
    )
    lines = [
        (
            index,
            category,
            row.kind,
            row.path,
            row.path.name,
            row.path.suffix,
            "-" if row.label < 0 else row.label,
            row.predicted,
            _number(row.raw),
            _number(row.score),
            *numbers,
            row.outcome,
        )
        for index, row in enumerate(rows)
    ]
    _write(path, [R3_COLUMNS, *lines], UTF8_BOM)


def write_r3_pixels(path: Path, rows: Sequence[Row]) -> None:
    """R3's pixel-level table: metrics of every image that has a mask."""
    lines = [
        (index, row.path, *(_number(v) for v in _values(row.pixel)))
        for index, row in enumerate(rows)
        if row.pixel is not None
    ]
    _write(path, [PIXEL_COLUMNS, *lines], UTF8_BOM)


def _values(pixel: PixelRow) -> tuple[float, ...]:
    return pixel.f1, pixel.auroc, pixel.recall, pixel.accuracy, pixel.precision


def write_r1(path: Path, rows: Sequence[Row]) -> None:
    """R1's ``predictions.csv``: both scores, decision and label in words."""
    words = ("normal", "anomaly")
    lines = [
        (
            row.path.name,
            _number(row.raw),
            _number(row.score),
            words[row.predicted],
            words[row.label],
        )
        for row in rows
    ]
    _write(path, [R1_COLUMNS, *lines], "utf-8")


def write_r0(
    path: Path,
    rows: Sequence[Row],
    score: Score,
    counts: Confusion,
    *,
    model: str,
    milliseconds: float | None = None,
) -> None:
    """R0's result file: model, threshold, metrics, confusion matrix, times, images; Shift-JIS.

    What is not known here (network, layers, coreset ratio, single times) stays empty. Raises
    InputError when a name cannot be written in Shift-JIS.
    """
    blank: tuple[object, ...] = ()
    normal = Confusion(counts.tn, counts.fn, counts.tp, counts.fp)  # seen from the normal class
    classes = [(c.precision, c.recall, c.f1) for c in (normal, counts)]
    mean = [sum(pair) / 2 for pair in zip(*classes, strict=True)]
    skip = ("",) * 6
    lines: list[Sequence[object]] = [
        ("patch core",),
        ("weights file", model),
        ("device", "cpu"),
        ("backborn", ""),
        ("coreset_sampling_ratio", ""),
        ("num_neighbors", score.k),
        ("Layers",),
        blank,
        ("threshould", score.decision),
        blank,
        (*skip, "", "", "precision", "recall", "f1_score"),
        (*skip, 0, "Normal", *classes[0]),
        (*skip, 1, "Abnormal", *classes[1]),
        (*skip, "", "macro-mean", *mean),
        blank,
        (*skip, "confusion matrix"),
        (*skip, "", "Predict"),
        (*skip, "", "Normal", "Abnormal"),
        (*skip[:5], "Label", "Normal", counts.tn, counts.fp),
        (*skip, "Abnormal", counts.fn, counts.tp),
        blank,
        ("benchmark [ms]",),
        blank,
        ("total time [ms]",),
        ("", "total time", "" if milliseconds is None else milliseconds),
        blank,
        ("No", "image", "Label", "Predict", "Result"),
    ]
    lines += [
        (number + 1, row.path.name, row.label, row.predicted, "x" if row.wrong else "o")
        for number, row in enumerate(rows)
    ]
    _write(path, lines, SHIFT_JIS)


def write_map(path: Path, heat: Array) -> None:
    """An anomaly map as R3 writes it: one row of the map per line, five decimals."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, heat, fmt="%.5f", delimiter=",")


def _number(value: float | None) -> str:
    """Nine digits bring a float32 back; what is not defined is "-"."""
    return "-" if value is None or np.isnan(value) else f"{value:.9g}"


def _write(path: Path, lines: Iterable[Sequence[object]], encoding: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("w", encoding=encoding, newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)
    except UnicodeEncodeError as error:
        raise InputError(
            f"a name cannot be written in {encoding}",
            where=f"{path}: {error.object[error.start : error.end]}",
            fix="rename the image, or take the UTF-8 table",
        ) from error
