"""The folder of a fitted model: written at once or not at all, read with every part checked.

```
MODEL/
  model.onnx      the whole detector, image to score and map; its metadata hold the contract
  contract.json   the same contract
  config.yaml     the effective configuration (accepted back by fit and retrain)
  evidence.json   raw scores of the validation images: thresholds can be changed from it
  metrics.json    what was measured on validation and test images
  backbone.onnx   the feature network (PatchCore, PaDiM)
  memory.bank     the memory bank (PatchCore)
  stats.npz       mean, inverse covariance, channel index (PaDiM)
  weights.npz     trained tensors (EfficientAD, VAE)
```
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from pydantic import TypeAdapter, ValidationError

from adcompile.anomaly.bank import prepare_bank, read_bank, write_bank
from adcompile.anomaly.config import FitConfig, dump_config, load_config, make_config
from adcompile.anomaly.formats.npz import read_npz, write_npz
from adcompile.anomaly.threshold import Evidence
from adcompile.contract import CONTRACT_KEY, Contract, parse_contract
from adcompile.errors import FormatError
from adcompile.fileset import FileSet, publish, staging
from adcompile.ir import model_io

Arrays = Mapping[str, npt.NDArray[np.generic]]
Numbers = Mapping[str, float | int | None]
Metrics = Mapping[str, Mapping[str, Numbers]]
"""Split ("validation", "test") to level ("image", "pixel") to value by name; None is undefined."""

MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True)
class Fitted:
    """A fitted detector in memory. ``device`` is where it was fitted (``cpu``, or a GPU's number and
    name), "" for one that was read from its folder."""

    config: FitConfig
    contract: Contract
    model: ir.Model
    evidence: Evidence
    metrics: Metrics = field(default_factory=dict[str, Mapping[str, Numbers]])
    backbone: ir.Model | None = None
    bank: npt.NDArray[np.float32] | None = None
    statistics: Arrays = field(default_factory=dict[str, npt.NDArray[np.generic]])
    weights: Arrays = field(default_factory=dict[str, npt.NDArray[np.generic]])
    notes: tuple[str, ...] = ()
    device: str = ""


def files_of(fitted: Fitted) -> FileSet:
    """All files of the folder, not yet written."""
    files = FileSet()
    files.add("contract.json", fitted.contract.dump() + "\n")
    files.add("config.yaml", dump_config(fitted.config))
    files.add("evidence.json", _json(asdict(fitted.evidence)))
    files.add("metrics.json", _json(dict(fitted.metrics)))
    files.add_writer("model.onnx", lambda path: model_io.save_model(fitted.model, path))
    if fitted.backbone is not None:
        backbone = fitted.backbone
        files.add_writer("backbone.onnx", lambda path: model_io.save_model(backbone, path))
    if fitted.bank is not None:
        bank = prepare_bank(fitted.bank)
        files.add_writer("memory.bank", lambda path: write_bank(path, bank))
    if fitted.statistics:
        files.add_writer("stats.npz", lambda path: write_npz(path, dict(fitted.statistics)))
    if fitted.weights:
        files.add_writer("weights.npz", lambda path: write_npz(path, dict(fitted.weights)))
    return files


def save_fitted(fitted: Fitted, folder: Path, *, replace: bool = False) -> None:
    """Write the folder; a reader sees the old one, the new one, or none."""
    files = files_of(fitted)
    staged = staging(folder)
    try:
        files.write_into(staged)
        publish(staged, folder, replace=replace)
    finally:
        if staged.exists():
            shutil.rmtree(staged)


def _json(data: object) -> str:
    return json.dumps(data, indent=1, sort_keys=True) + "\n"


def read_config(folder: Path) -> FitConfig:
    """The effective configuration of a fitted model."""
    values = load_config(folder / "config.yaml")
    method = values.pop("method", "")
    return make_config(str(method), values)


def read_evidence(folder: Path) -> Evidence:
    """The validation scores of a fitted model."""
    path = folder / "evidence.json"
    try:
        data = json.loads(_text(path))
        return TypeAdapter(Evidence).validate_python(data)
    except (ValidationError, ValueError) as error:
        raise FormatError("the evidence is damaged", where=str(path), why=str(error)) from error


_METRICS = dict[str, dict[str, dict[str, float | int | None]]]


def read_metrics(folder: Path) -> Metrics:
    """What was measured when the model was fitted."""
    path = folder / "metrics.json"
    try:
        return TypeAdapter(_METRICS).validate_json(_text(path))
    except ValidationError as error:
        raise FormatError("the metrics are damaged", where=str(path), why=str(error)) from error


def read_contract_of(folder: Path) -> Contract:
    """The contract of a fitted model; refuses one that differs from the graph's own."""
    path = folder / "contract.json"
    contract = parse_contract(_text(path), str(path))
    inside = model_io.load_model(folder / "model.onnx").metadata_props.get(CONTRACT_KEY, "")
    if parse_contract(inside, f"{folder}/model.onnx") != contract:
        raise FormatError(
            "contract.json differs from the contract inside model.onnx",
            where=str(path),
            fix="change thresholds with: adcompile retrain MODEL --only-threshold",
        )
    return contract


def _text(path: Path) -> str:
    if not path.is_file():
        raise FormatError("a fitted model's file is missing", where=str(path))
    if path.stat().st_size > MAX_JSON_BYTES:
        raise FormatError("a fitted model's file is too large", where=str(path))
    return path.read_text(encoding="utf-8")


def load_fitted(folder: Path) -> Fitted:
    """A fitted model as it was saved. The bank is read from its file and checked."""
    if not folder.is_dir() or not (folder / "config.yaml").is_file():
        raise FormatError(
            "not a folder written by adcompile fit", where=str(folder), why="it has no config.yaml"
        )
    bank_file, stats, weights = (folder / n for n in ("memory.bank", "stats.npz", "weights.npz"))
    backbone = folder / "backbone.onnx"
    return Fitted(
        config=read_config(folder),
        contract=read_contract_of(folder),
        model=model_io.load_model(folder / "model.onnx"),
        evidence=read_evidence(folder),
        metrics=read_metrics(folder),
        backbone=model_io.load_model(backbone) if backbone.is_file() else None,
        bank=read_bank(bank_file).original_rows() if bank_file.is_file() else None,
        statistics=read_npz(stats) if stats.is_file() else {},
        weights=read_npz(weights) if weights.is_file() else {},
    )
