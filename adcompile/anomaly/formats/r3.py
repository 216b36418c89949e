"""R3's files: ``trained_data.hmc``, and ``meta_data.json`` beside an exported network.

An ``.hmc`` is a torch-saved dict of learned tensors and eight numbers, without network weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from adcompile.anomaly.formats.record import Trained, need
from adcompile.anomaly.formats.state import NUMBERS, trained_from
from adcompile.anomaly.formats.torch_file import read_torch_file
from adcompile.anomaly.formats.torch_write import write_torch_file
from adcompile.errors import FormatError

_NAMES: Mapping[str, str] = {field: names[-1] for field, names in NUMBERS.items()} | {
    "minimum": "min_max.min",
    "maximum": "min_max.max",
}
_FIELDS = ("threshold", "pixel_threshold", "minimum", "maximum", "log_mean", "log_std")
_PIXEL_STATISTICS = {
    "log_mean": "training_distribution.pixel_mean",
    "log_std": "training_distribution.pixel_std",
}
KEYS = frozenset(
    {"model.memory_bank", "model.idx", "model.gaussian.mean", "model.gaussian.inv_covariance"}
    | {_NAMES[field] for field in _FIELDS}
    | set(_PIXEL_STATISTICS.values())
)
"""Every key an ``.hmc`` can have."""
MAX_META_BYTES = 1 << 20


def is_hmc(content: object) -> bool:
    """True when a torch file's content is R3's dict: learned tensors and numbers, no network."""
    if not isinstance(content, dict):
        return False
    keys = set(map(str, cast("dict[object, object]", content)))
    return _NAMES["threshold"] in keys and bool(keys & KEYS - {_NAMES["threshold"]})


def read_hmc(path: Path) -> Trained:
    """Read an ``.hmc``; a key R3 does not write is refused by name."""
    content = read_torch_file(path)
    if not is_hmc(content):
        raise FormatError("not a trained-data file of R3", where=f"{path}: {_NAMES['threshold']}")
    tensors = {str(k): v for k, v in cast("dict[object, object]", content).items()}
    unknown = sorted(set(tensors) - KEYS)
    if unknown:
        raise FormatError("unknown key in an .hmc", where=f"{path}: {unknown[0]}")
    return trained_from(tensors, "hmc", str(path))


def write_hmc(path: Path, trained: Trained) -> None:
    """Write an ``.hmc``: learned tensors and eight numbers, no network weights."""
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
    for field in _FIELDS:
        value: float | None = getattr(trained, field)
        filled = trained.threshold if value is None and field == "pixel_threshold" else value
        number = np.array(np.nan if filled is None else filled, dtype=np.float32)
        content[_NAMES[field]] = number
        if field in _PIXEL_STATISTICS:
            content[_PIXEL_STATISTICS[field]] = number
    write_torch_file(path, content)


class MetaData(BaseModel):
    """``meta_data.json``; infinite values were left out when it was written."""

    model_config = ConfigDict(extra="forbid")

    image_threshold: float | None = None
    pixel_threshold: float | None = None
    image_mean: float | None = None
    image_std: float | None = None
    pixel_mean: float | None = None
    pixel_std: float | None = None
    min: float | None = None
    max: float | None = None


def read_meta_data(path: Path) -> MetaData:
    """Read and check a ``meta_data.json``; raises FormatError naming the key at fault."""
    if not path.is_file() or path.stat().st_size > MAX_META_BYTES:
        raise FormatError("no readable meta_data.json", where=str(path))
    try:
        return MetaData.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise FormatError(
            "meta_data.json is not valid", where=f"{path}: {name}", why=first["msg"]
        ) from error


def read_numbers(path: Path) -> Trained:
    """The numbers of a ``meta_data.json`` as a record without arrays."""
    data = read_meta_data(path)
    return Trained(
        "unknown",
        "r3-meta",
        threshold=data.image_threshold,
        pixel_threshold=data.pixel_threshold,
        minimum=data.min,
        maximum=data.max,
        log_mean=data.image_mean,
        log_std=data.image_std,
        notes=("only numbers: the network is in the exported model beside the file",),
    )


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
