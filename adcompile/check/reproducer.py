"""A failure as a folder that anyone can run: model, inputs, expected outputs, what to do.

model.onnx        the smallest failing graph
inputs.npz        its inputs
expected.npz      what it should give
reproducer.json   kind of failure, pass, tolerances
README.txt        in words, with the command
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, ValidationError

from adcompile.check.compare import Comparison, compare
from adcompile.check.tolerance import Tolerances
from adcompile.errors import FormatError, InputError
from adcompile.interfaces import Array, Report
from adcompile.ir import model_io
from adcompile.ir.evaluate import evaluate
from adcompile.rewrite.pipeline import Pipeline
from adcompile.runtime.arrays import safe_names
from adcompile.runtime.feeds import read_arrays

RECORD = "reproducer.json"
SCHEMA = 1


class Record(BaseModel):
    """What ``reproducer.json`` holds. ``names`` maps a key of the ``.npz`` files to a tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    kind: Literal["pass", "part"]
    culprit: str  # the pass as pipeline text, or the part's name
    title: str
    inputs: dict[str, str]
    expected: dict[str, str]
    tolerances: dict[str, tuple[float, float]] = {}


@dataclass(frozen=True)
class Reproducer:
    """A failure in memory, ready to be written."""

    kind: Literal["pass", "part"]
    culprit: str
    title: str
    model: ir.Model
    feeds: Mapping[str, Array]
    expected: Mapping[str, Array]
    tolerances: Mapping[str, tuple[float, float]]


def write_reproducer(folder: Path, failure: Reproducer) -> Path:
    """Write *failure* into *folder* (made if need be). Raises InputError when that fails."""
    inputs = _keys(failure.feeds)
    expected = _keys(failure.expected)
    record = Record(
        kind=failure.kind,
        culprit=failure.culprit,
        title=failure.title,
        inputs=inputs,
        expected=expected,
        tolerances=dict(failure.tolerances),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model_io.save_model(failure.model, folder / "model.onnx")
        _save(folder / "inputs.npz", {k: failure.feeds[n] for k, n in inputs.items()})
        _save(folder / "expected.npz", {k: failure.expected[n] for k, n in expected.items()})
        text = json.dumps(record.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
        (folder / RECORD).write_text(text, encoding="utf-8")
        (folder / "README.txt").write_text(_readme(failure), encoding="utf-8")
    except OSError as error:
        raise InputError(
            "cannot write the reproducer", where=str(folder), why=error.strerror or str(error)
        ) from error
    return folder


def _keys(arrays: Mapping[str, Array]) -> dict[str, str]:
    return {file.removesuffix(".npy"): name for name, file in safe_names(arrays).items()}


def _save(path: Path, arrays: Mapping[str, Array]) -> None:
    with path.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **dict(arrays))


def _readme(failure: Reproducer) -> str:
    nodes = ", ".join(f"{n.op_type} {n.name!r}" for n in list(failure.model.graph)[:20])
    harm = {
        "pass": f"The pass {failure.culprit} changes the outputs of model.onnx.",
        "part": f"model.onnx, cut from part {failure.culprit}, does not give expected.npz.",
    }[failure.kind]
    return (
        f"{failure.title}\n\n{harm}\n"
        f"Graph: {nodes}\n\n"
        "Run it again (exit code 1 while the failure is there):\n\n"
        "    adcompile verify THIS_FOLDER\n"
    )


def is_reproducer(folder: Path) -> bool:
    """True for a folder that :func:`write_reproducer` made."""
    return (folder / RECORD).is_file()


def replay(folder: Path) -> tuple[Record, list[Comparison]]:
    """Run the failure again; all comparisons are ok when it is gone. Raises FormatError."""
    try:
        record = Record.model_validate_json((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise FormatError(
            "reproducer cannot be read", where=str(folder), why=" ".join(str(error).split())[:300]
        ) from error
    feeds = _named(folder / "inputs.npz", record.inputs)
    expected = _named(folder / "expected.npz", record.expected)
    model = model_io.load_model(folder / "model.onnx")
    if record.kind == "pass":
        pipeline = Pipeline.parse(record.culprit)
        pipeline.run(model, Report(allowed=frozenset(pipeline.names())))
    wanted = {value.name for value in model.graph.inputs}
    found = evaluate(model, {n: a for n, a in feeds.items() if n in wanted})
    return record, compare(expected, found, {}, Tolerances.of(record.tolerances))


def _named(path: Path, names: Mapping[str, str]) -> dict[str, Array]:
    arrays = read_arrays(path)
    missing = [key for key in names if key not in arrays]
    if missing:
        raise FormatError("reproducer lacks an array", where=f"{path}: {missing[0]}")
    return {name: arrays[key] for key, name in names.items()}
