"""R1's ``meta.json``: one schema per model, both spellings of the keys upstream spells in two ways."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from adcompile.errors import FormatError

MAX_META_BYTES = 1 << 20
Side = Annotated[int, Field(ge=8, le=8192)]
FileName = Annotated[str, Field(pattern=r"^[^/\\\x00]{1,255}$")]


class Meta(BaseModel):
    """What every meta.json has. ``image_threshold`` is on the normalised scale, ``_auto`` raw."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    image_size: Side
    weights_pth: FileName = "model.pth"
    image_threshold: float = 0.5
    image_threshold_auto: float | None = None
    raw_image_min: float | None = None
    raw_image_max: float | None = None


class PatchcoreMeta(Meta):
    """meta.json of PatchCore."""

    model: Literal["patchcore"] = "patchcore"
    backbone: str
    layers: tuple[str, ...] = Field(min_length=1)
    coreset_ratio: float = Field(gt=0.0, le=1.0)
    memory_bank: FileName = "memory_bank.npz"


class PadimMeta(Meta):
    """meta.json of PaDiM."""

    model: Literal["padim"] = "padim"
    backbone: str
    layers: tuple[str, ...] = Field(min_length=1)
    n_features: int = Field(gt=0)
    stats: FileName = "stats.npz"


class EfficientadMeta(Meta):
    """meta.json of EfficientAD."""

    model: Literal["efficientad"] = "efficientad"
    model_size: Literal["small", "medium"]
    learning_rate: float = Field(gt=0.0)


class VaeMeta(Meta):
    """meta.json of the VAE."""

    model: Literal["vae"] = "vae"
    learning_rate: float = Field(gt=0.0)
    latent_dim: int = Field(gt=0)


AnyMeta = PatchcoreMeta | PadimMeta | EfficientadMeta | VaeMeta
_BY_FIELD: tuple[tuple[str, type[Meta]], ...] = (
    ("coreset_ratio", PatchcoreMeta),
    ("n_features", PadimMeta),
    ("model_size", EfficientadMeta),
    ("latent_dim", VaeMeta),
)
OTHER_SPELLING = {"image_min": "raw_image_min", "image_max": "raw_image_max"}
"""The spelling of some notebooks to the spelling of the documents."""


def read_meta(path: Path) -> AnyMeta:
    """Read and check a meta.json; the model is told by the keys only that model has."""
    if not path.is_file():
        raise FormatError("no such meta.json", where=str(path))
    if path.stat().st_size > MAX_META_BYTES:
        raise FormatError("meta.json is too large", where=str(path))
    try:
        raw: object = json.loads(path.read_text(encoding="utf-8-sig"))
        fields = TypeAdapter(dict[str, object]).validate_python(raw)
    except (ValueError, UnicodeDecodeError) as error:
        raise FormatError(
            "meta.json is not a JSON object", where=str(path), why=str(error)
        ) from error
    for old, new in OTHER_SPELLING.items():
        if old in fields and new in fields and fields[old] != fields[new]:
            raise FormatError(f"{old} and {new} differ", where=str(path))
        if old in fields:
            fields[new] = fields.pop(old)
    kind = next((meta for key, meta in _BY_FIELD if key in fields), None)
    if kind is None:
        keys = ", ".join(key for key, _ in _BY_FIELD)
        raise FormatError("meta.json fits no model", where=str(path), why=f"none of {keys}")
    try:
        meta = kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise FormatError(
            "meta.json is not valid", where=f"{path}: {name}", why=first["msg"]
        ) from error
    _check_range(meta, path)
    return TypeAdapter(AnyMeta).validate_python(meta)


def _check_range(meta: Meta, path: Path) -> None:
    low, high = meta.raw_image_min, meta.raw_image_max
    if (low is None) != (high is None):
        raise FormatError("minimum and maximum come in pairs", where=f"{path}: raw_image_min")
    if low is not None and high is not None and not high > low:
        raise FormatError(
            "the maximum is not above the minimum",
            where=f"{path}: raw_image_max",
            why=f"{low}, {high}",
        )
    for name in ("image_threshold", "image_threshold_auto"):
        value = getattr(meta, name)
        if value is not None and not math.isfinite(value):
            raise FormatError("not a finite number", where=f"{path}: {name}", why=str(value))
