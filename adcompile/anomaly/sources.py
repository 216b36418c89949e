"""Where a data set comes from: a folder, a list file, or a YAML file that names lists.

```
good: [ok.txt, more/]          # folders, images, or text/CSV lists of paths
bad: [ng.csv]                  # optional
masks: [masks.txt]             # optional, in the order of bad
```

R0's training configuration is read too: ``train.data_paths``, ``val.data_paths`` with ``val.labels``,
and ``test`` in the same way. Paths are relative to the YAML file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from adcompile.anomaly.config import load_config
from adcompile.anomaly.layouts import read_folder
from adcompile.anomaly.lists import read_file_lists, read_r0_lists
from adcompile.anomaly.samples import DataSet, SplitOptions
from adcompile.errors import FormatError, InputError

Described = TypeVar("Described", bound=BaseModel)


class _Split(BaseModel):
    """R0's description of a split; other keys are its own business."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    data_paths: tuple[Path, ...] = ()
    labels: tuple[int, ...] = ()
    enable: bool = True


class _R0(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    train: _Split = _Split()
    val: _Split = _Split()
    test: _Split = _Split()


class _Lists(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    good: tuple[Path, ...]
    bad: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()


def read_data(
    source: Path, options: SplitOptions | None = None, *, layout: str = "auto", category: str = ""
) -> DataSet:
    """The data set that *source* names; see the module. Raises InputError when it does not exist."""
    if source.is_dir():
        return read_folder(source, options, layout=layout, category=category)
    if not source.is_file():
        raise InputError(
            "no such data", where=str(source), fix="a folder, a list of paths, or a YAML file"
        )
    name = category or source.stem
    if source.suffix.lower() not in {".yaml", ".yml"}:
        return read_file_lists([source], options=options, category=name)
    values = load_config(source)
    if "good" in values:
        lists = _parse(_Lists, values, source)
        groups = (lists.good, lists.bad, lists.masks)
        good, bad, masks = ([source.parent / path for path in paths] for paths in groups)
        return read_file_lists(good, bad, masks, options, name)
    r0 = _parse(_R0, values, source)
    train, val, test = (
        [source.parent / path for path in split.data_paths]
        for split in (r0.train, r0.val, r0.test)
    )
    tested = test if r0.test.enable else []
    return read_r0_lists(
        train, val, r0.val.labels, tested, r0.test.labels if r0.test.enable else ()
    )


def _parse(kind: type[Described], values: Mapping[str, object], source: Path) -> Described:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise FormatError(
            "the data description is not valid", where=f"{source}: {field}", why=first["msg"]
        ) from error
