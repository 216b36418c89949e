"""R1's files: ``meta.json`` with ``memory_bank.npz`` or ``stats.npz``, and ``model.pth``.

Both spellings of every key that upstream spells in two ways are read: ``raw_image_min`` and
``image_min``; ``cov_inv`` and ``inv_cov``. Written files carry the spelling the notebooks read.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from adcompile.anomaly.formats.npz import read_npz, write_npz
from adcompile.anomaly.formats.record import Array, Trained, as_bank, need
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
_OTHER_SPELLING = {"image_min": "raw_image_min", "image_max": "raw_image_max"}


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
    for old, new in _OTHER_SPELLING.items():
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


def read_folder(path: Path) -> Trained:
    """A trained model from its meta.json (or the folder of it) with the arrays beside it."""
    meta_path = path / "meta.json" if path.is_dir() else path
    meta = read_meta(meta_path)
    trained = Trained(
        method=meta.model,
        source="r1",
        threshold=meta.image_threshold_auto,
        decision=meta.image_threshold,
        minimum=meta.raw_image_min,
        maximum=meta.raw_image_max,
        input_size=(meta.image_size, meta.image_size),
    )
    if meta.image_threshold_auto == meta.image_threshold:
        note = "image_threshold_auto equals image_threshold: it was never measured"
        trained = replace(trained, threshold=None, notes=(note,))
    beside = meta_path.parent
    if isinstance(meta, PatchcoreMeta):
        return replace(
            trained,
            backbone=meta.backbone,
            layers=meta.layers,
            ratio=meta.coreset_ratio,
            neighbours=9,
            bank=read_bank_npz(beside / meta.memory_bank).bank,
        )
    if isinstance(meta, PadimMeta):
        stats = read_stats(beside / meta.stats)
        return replace(
            trained,
            backbone=meta.backbone,
            layers=meta.layers,
            mean=stats.mean,
            inverse=stats.inverse,
            index=stats.index,
        )
    return trained


def read_bank_npz(path: Path) -> Trained:
    """``memory_bank.npz``: the array ``embeddings`` [M, C]."""
    arrays = read_npz(path)
    if "embeddings" not in arrays:
        names = ", ".join(sorted(arrays)[:10])
        raise FormatError(
            "'embeddings' not found in npz", where=str(path), why=f"it holds {names}"
        )
    bank = as_bank(arrays["embeddings"], f"{path}: embeddings")
    return Trained(method="patchcore", source="r1-npz", bank=bank)


def read_stats(path: Path) -> Trained:
    """``stats.npz``: ``mu`` [C, P] and the inverse covariance [P, C, C] under either name.

    Upstream does not save the channel index; ours is read when the file holds ``index``.
    """
    arrays = read_npz(path)
    mean = arrays.get("mu")
    inverse = arrays.get("cov_inv", arrays.get("inv_cov"))
    if mean is None or inverse is None:
        lacking = "mu" if mean is None else "cov_inv (or inv_cov)"
        names = ", ".join(sorted(arrays)[:10])
        raise FormatError(f"{lacking} not found in npz", where=str(path), why=f"it holds {names}")
    if mean.ndim != 2 or inverse.shape != (mean.shape[1], mean.shape[0], mean.shape[0]):
        raise FormatError(
            "statistics have the wrong shape",
            where=f"{path}: cov_inv",
            why=f"mu {mean.shape}, inverse covariance {inverse.shape}; expected [C, P], [P, C, C]",
        )
    index = arrays.get("index")
    return Trained(
        method="padim",
        source="r1-stats",
        mean=np.ascontiguousarray(mean, dtype=np.float32),
        inverse=np.ascontiguousarray(inverse, dtype=np.float32),
        index=None if index is None else index.astype(np.int64),
    )


def write_bank_npz(path: Path, trained: Trained) -> None:
    """Write ``memory_bank.npz``."""
    need(trained, ("bank",), "memory_bank.npz")
    assert trained.bank is not None
    write_npz(path, {"embeddings": trained.bank})


def write_stats(path: Path, trained: Trained) -> None:
    """Write ``stats.npz`` with both spellings of the inverse covariance's name, and the index."""
    need(trained, ("mean", "inverse"), "stats.npz")
    assert trained.mean is not None
    assert trained.inverse is not None
    arrays: dict[str, Array] = {"mu": trained.mean, "cov_inv": trained.inverse}
    arrays["inv_cov"] = trained.inverse
    if trained.index is not None:
        arrays["index"] = trained.index
    write_npz(path, arrays)


def write_folder(path: Path, trained: Trained) -> None:
    """Write meta.json and the arrays beside it into the folder *path* (or beside meta.json)."""
    folder = path.parent if path.suffix == ".json" else path
    if trained.method not in {"patchcore", "padim"}:
        raise FormatError(f"no R1 folder is written for {trained.method}", where=str(path))
    need(trained, ("input_size",), "meta.json")
    assert trained.input_size is not None
    decision = 0.5 if trained.decision is None else trained.decision
    fields: dict[str, object] = {
        "image_size": trained.input_size[0],
        "image_threshold": decision,
        "image_threshold_auto": decision if trained.threshold is None else trained.threshold,
        "raw_image_min": trained.minimum,
        "raw_image_max": trained.maximum,
        "backbone": trained.backbone,
        "layers": trained.layers,
    }
    if trained.method == "patchcore":
        need(trained, ("bank", "ratio"), "an R1 PatchCore folder")
        meta: AnyMeta = PatchcoreMeta.model_validate(fields | {"coreset_ratio": trained.ratio})
        write_bank_npz(folder / "memory_bank.npz", trained)
    else:
        need(trained, ("mean", "inverse"), "an R1 PaDiM folder")
        assert trained.mean is not None
        meta = PadimMeta.model_validate(fields | {"n_features": trained.mean.shape[0]})
        write_stats(folder / "stats.npz", trained)
    data = meta.model_dump(mode="json", exclude={"model"}, exclude_none=True)
    for new, old in _OTHER_SPELLING.items():
        if old in data:
            data[new] = data[old]
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=2, sort_keys=True) + "\n"
    (folder / "meta.json").write_text(text, encoding="utf-8")
