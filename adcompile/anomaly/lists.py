"""Data sets given as lists: files of paths, R0's ``data_paths`` (folders or CSV files), arrays."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from adcompile.anomaly.images import is_image
from adcompile.anomaly.layouts import divide_normal, find_images
from adcompile.anomaly.samples import DataSet, Sample, SplitOptions, divide
from adcompile.errors import FormatError, InputError, UsageError

MAX_LIST_BYTES = 64 << 20


def read_path_list(source: Path) -> list[Path]:
    """Image paths named by *source*: a folder (recursive), an image, or a text/CSV file of paths.

    In a list file each row's first column is a path, absolute or relative to the file; blank
    rows and rows starting with "#" are skipped, and a first row that names no existing file is
    taken for a header. Text is UTF-8 (with or without mark) or Shift-JIS.
    """
    if source.is_dir():
        found = find_images(source)
        if not found:
            raise InputError("no image in folder", where=str(source))
        return found
    if not source.is_file():
        raise InputError("no such file or folder", where=str(source))
    if is_image(source):
        return [source]
    rows = [
        row[0].strip() for row in csv.reader(_text(source).splitlines()) if row and row[0].strip()
    ]
    rows = [row for row in rows if not row.startswith("#")]
    if rows and not _resolve(source, rows[0]).is_file() and not Path(rows[0]).suffix:
        rows = rows[1:]
    paths = [_resolve(source, row) for row in rows]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            "a listed image does not exist",
            where=f"{source}: {missing[0]}",
            why=f"{len(missing)} of {len(paths)} are missing",
        )
    if not paths:
        raise InputError("the list names no image", where=str(source))
    return paths


def _text(source: Path) -> str:
    if source.stat().st_size > MAX_LIST_BYTES:
        raise FormatError("list file is too large", where=str(source))
    data = source.read_bytes()
    for encoding in ("utf-8-sig", "cp932"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise FormatError("list file is neither UTF-8 nor Shift-JIS text", where=str(source))


def _resolve(source: Path, row: str) -> Path:
    path = Path(row)
    return path if path.is_absolute() else source.parent / path


def read_file_lists(
    good: Sequence[Path],
    bad: Sequence[Path] = (),
    masks: Sequence[Path] = (),
    options: SplitOptions | None = None,
    category: str = "list",
) -> DataSet:
    """Good, bad and mask lists; masks pair with bad images in order, so their numbers must agree."""
    normal = [Sample(p, 0) for source in good for p in read_path_list(source)]
    broken = [p for source in bad for p in read_path_list(source)]
    painted = [p for source in masks for p in read_path_list(source)]
    if painted and len(painted) != len(broken):
        raise InputError(
            "masks and bad images differ in number",
            why=f"{len(painted)} masks, {len(broken)} bad images",
        )
    pairs = [
        Sample(path, 1, "bad", painted[index] if painted else None)
        for index, path in enumerate(broken)
    ]
    return divide_normal(category, "filelist", normal, pairs, options or SplitOptions())


def read_labelled(paths: Sequence[Path], labels: Sequence[int]) -> list[Sample]:
    """R0's ``data_paths`` with ``labels``: one label (0 or 1) for each folder or list."""
    if len(paths) != len(labels):
        raise UsageError(
            "data_paths and labels differ in number",
            why=f"{len(paths)} paths, {len(labels)} labels",
        )
    if any(label not in (0, 1) for label in labels):
        raise UsageError("labels must be 0 (normal) or 1 (abnormal)", why=f"got {list(labels)}")
    return [
        Sample(p, label, "good" if label == 0 else "bad")
        for source, label in zip(paths, labels, strict=True)
        for p in read_path_list(source)
    ]


def read_r0_lists(
    train: Sequence[Path],
    validation: Sequence[Path],
    validation_labels: Sequence[int],
    test: Sequence[Path] = (),
    test_labels: Sequence[int] = (),
) -> DataSet:
    """The three lists of R0's training configuration; an empty training list is an error."""
    if not train:
        raise InputError("no train data", where="train.data_paths")
    normal = [Sample(p, 0) for source in train for p in read_path_list(source)]
    held = read_labelled(validation, validation_labels)
    tested = read_labelled(test, test_labels)
    plain = divide("list", "r0", normal, tested, SplitOptions(validation="same"))
    return DataSet("list", "r0", plain.train, tuple(held), tuple(tested))
