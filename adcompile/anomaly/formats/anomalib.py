"""Checkpoints of anomalib (PatchCore, PaDiM, EfficientAD; versions 0.x to 2.x) and of R3.

Both are torch files. R3's ``.hmc`` is a dict of learned tensors only; anomalib's ``.ckpt`` holds a
``state_dict`` and the hyper-parameters. Every other object inside is passed over unread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from adcompile.anomaly.formats.record import (
    Array,
    Trained,
    as_bank,
    as_float,
    as_int,
    as_names,
    need,
)
from adcompile.anomaly.formats.torch_file import read_torch_file, write_torch_file
from adcompile.errors import FormatError

Tensors = Mapping[str, object]

# field of a record -> names it has had, newest first
_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "threshold": ("post_processor._image_threshold", "image_threshold.value"),
    "pixel_threshold": ("post_processor._pixel_threshold", "pixel_threshold.value"),
    "minimum": ("post_processor.image_min", "min_max.min", "normalization_metrics.min"),
    "maximum": ("post_processor.image_max", "min_max.max", "normalization_metrics.max"),
    "pixel_minimum": ("post_processor.pixel_min",),
    "pixel_maximum": ("post_processor.pixel_max",),
    "log_mean": ("training_distribution.image_mean",),
    "log_std": ("training_distribution.image_std",),
}
_HMC_NAMES: Mapping[str, str] = {
    "threshold": "image_threshold.value",
    "pixel_threshold": "pixel_threshold.value",
    "minimum": "min_max.min",
    "maximum": "min_max.max",
    "log_mean": "training_distribution.image_mean",
    "log_std": "training_distribution.image_std",
}


def state_dict(content: object) -> Tensors | None:
    """The named tensors of a torch file's content: itself, or under ``state_dict``/``model``."""
    if not isinstance(content, dict):
        return None
    mapping = cast("dict[object, object]", content)
    for key in ("state_dict", "model"):
        inner = mapping.get(key)
        if isinstance(inner, dict):
            return {str(k): v for k, v in cast("dict[object, object]", inner).items()}
    if any(isinstance(value, np.ndarray) for value in mapping.values()):
        return {str(k): v for k, v in mapping.items()}
    return None


def read_checkpoint(path: Path) -> Trained:
    """Read an anomalib ``.ckpt``/``.pt`` or an R3 ``.hmc``."""
    return from_content(read_torch_file(path), path)


def from_content(content: object, path: Path) -> Trained:
    """The record of an already read torch file."""
    tensors = state_dict(content)
    if tensors is None:
        raise FormatError("the checkpoint holds no tensors", where=str(path))
    trained = _model(tensors, path)
    numbers = {field: _number(tensors, names, path) for field, names in _NUMBERS.items()}
    trained = replace(
        trained,
        threshold=numbers["threshold"],
        pixel_threshold=numbers["pixel_threshold"],
        minimum=numbers["minimum"],
        maximum=numbers["maximum"],
        pixel_minimum=numbers["pixel_minimum"],
        pixel_maximum=numbers["pixel_maximum"],
        log_mean=numbers["log_mean"],
        log_std=numbers["log_std"],
    )
    return _hyper(trained, content, path)


def _model(tensors: Tensors, path: Path) -> Trained:
    plain = "state_dict-like" if any("." in name for name in tensors) else "flat"
    bank = tensors.get("model.memory_bank")
    if bank is not None:
        source = (
            "hmc" if "image_threshold.value" in tensors and not _network(tensors) else "anomalib"
        )
        return Trained(
            "patchcore",
            source,
            bank=as_bank(bank, f"{path}: model.memory_bank"),
            weights=_network(tensors),
        )
    if "model.gaussian.mean" in tensors:
        return _padim(tensors, path)
    if "model.student.conv1.weight" in tensors:
        return Trained("efficientad", "anomalib", weights=_network(tensors))
    names = ", ".join(sorted(tensors)[:5])
    raise FormatError(
        "the checkpoint is of no known anomaly model",
        where=str(path),
        why=f"{plain}, {len(tensors)} tensors: {names} …",
        fix="PatchCore, PaDiM and EfficientAD are read",
    )


def _padim(tensors: Tensors, path: Path) -> Trained:
    parts: dict[str, Array] = {}
    for name in ("model.gaussian.mean", "model.gaussian.inv_covariance", "model.idx"):
        value = tensors.get(name)
        if not isinstance(value, np.ndarray):
            raise FormatError("PaDiM statistics are incomplete", where=f"{path}: {name}")
        parts[name] = cast("Array", value)
    mean = parts["model.gaussian.mean"].astype(np.float32)
    inverse = parts["model.gaussian.inv_covariance"].astype(np.float32)
    network = _network(tensors)
    source = "hmc" if "image_threshold.value" in tensors and not network else "anomalib"
    return Trained(
        "padim",
        source,
        mean=mean,
        inverse=inverse,
        index=parts["model.idx"].astype(np.int64),
        weights=network,
    )


_LEARNED = ("model.memory_bank", "model.gaussian.", "model.idx")


def _network(tensors: Tensors) -> dict[str, Array]:
    """Tensors of the networks themselves, "model." cut off."""
    return {
        name.removeprefix("model."): cast("Array", value)
        for name, value in tensors.items()
        if name.startswith("model.")
        and not name.startswith(_LEARNED)
        and isinstance(value, np.ndarray)
    }


def _number(tensors: Tensors, names: tuple[str, ...], path: Path) -> float | None:
    for name in names:
        if name in tensors:
            value = as_float(tensors[name], f"{path}: {name}")
            return None if value is None or not np.isfinite(value) else value
    return None


def _hyper(trained: Trained, content: object, path: Path) -> Trained:
    mapping = cast("dict[object, object]", content) if isinstance(content, dict) else {}
    raw = mapping.get("hyper_parameters")
    hyper = cast("dict[object, object]", raw) if isinstance(raw, dict) else {}
    backbone = hyper.get("backbone")
    neighbours = hyper.get("num_neighbors")
    ratio = hyper.get("coreset_sampling_ratio")
    return replace(
        trained,
        backbone=backbone if isinstance(backbone, str) else trained.backbone,
        layers=as_names(hyper.get("layers")) or trained.layers,
        neighbours=as_int(neighbours, f"{path}: num_neighbors"),
        ratio=as_float(ratio, f"{path}: coreset_sampling_ratio"),
    )


def write_hmc(path: Path, trained: Trained) -> None:
    """Write an R3 ``.hmc``: learned tensors and eight numbers, no network weights."""
    content: dict[str, object] = {}
    if trained.method == "patchcore":
        need(trained, ("bank",), "an .hmc")
        content["model.memory_bank"] = trained.bank
    elif trained.method == "padim":
        need(trained, ("mean", "inverse", "index"), "an .hmc")
        content["model.idx"] = trained.index
        content["model.gaussian.mean"] = trained.mean
        content["model.gaussian.inv_covariance"] = trained.inverse
    else:
        raise FormatError(
            f"an .hmc holds PatchCore or PaDiM, not {trained.method}", where=str(path)
        )
    need(trained, ("threshold", "minimum", "maximum"), "an .hmc")
    for field, name in _HMC_NAMES.items():
        value: float | None = getattr(trained, field)
        filled = trained.threshold if value is None and field == "pixel_threshold" else value
        content[name] = np.array(np.nan if filled is None else filled, dtype=np.float32)
    content["training_distribution.pixel_mean"] = content["training_distribution.image_mean"]
    content["training_distribution.pixel_std"] = content["training_distribution.image_std"]
    write_torch_file(path, content)


class MetaData(BaseModel):
    """R3's ``meta_data.json`` beside an exported network; infinite values were left out."""

    model_config = ConfigDict(extra="ignore")

    image_threshold: float | None = None
    pixel_threshold: float | None = None
    image_mean: float | None = None
    image_std: float | None = None
    pixel_mean: float | None = None
    pixel_std: float | None = None
    min: float | None = None
    max: float | None = None


def read_meta_data(path: Path) -> MetaData:
    """Read a ``meta_data.json``."""
    if not path.is_file() or path.stat().st_size > 1 << 20:
        raise FormatError("no readable meta_data.json", where=str(path))
    try:
        return MetaData.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise FormatError(
            "meta_data.json is not valid", where=f"{path}: {name}", why=first["msg"]
        ) from error


def write_meta_data(path: Path, trained: Trained) -> None:
    """Write a ``meta_data.json`` with what the record holds."""
    fields = {
        "image_threshold": trained.threshold,
        "pixel_threshold": trained.pixel_threshold,
        "image_mean": trained.log_mean,
        "image_std": trained.log_std,
        "min": trained.minimum,
        "max": trained.maximum,
    }
    known = {
        name: value for name, value in fields.items() if value is not None and np.isfinite(value)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
