"""R1's files: ``meta.json`` with ``memory_bank.npz`` or ``stats.npz``, and ``model.pth``.

Both spellings of every key that upstream spells in two ways are read: ``raw_image_min`` and
``image_min``; ``cov_inv`` and ``inv_cov``. Written files carry both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from adcompile.anomaly.formats.anomalib import state_dict
from adcompile.anomaly.formats.npz import read_npz, write_npz
from adcompile.anomaly.formats.r1_meta import (
    OTHER_SPELLING,
    EfficientadMeta,
    Meta,
    PadimMeta,
    PatchcoreMeta,
    VaeMeta,
    read_meta,
)
from adcompile.anomaly.formats.record import Array, Trained, as_bank, need
from adcompile.anomaly.formats.state import state_of, trained_from
from adcompile.anomaly.formats.torch_file import read_torch_file
from adcompile.anomaly.formats.torch_write import write_torch_file
from adcompile.errors import FormatError


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
    weights = beside / meta.weights_pth
    if weights.is_file():
        trained = _with_network(trained, read_network(weights), weights)
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
        assert stats.mean is not None
        if stats.mean.shape[0] != meta.n_features:
            raise FormatError(
                "meta.json and statistics disagree",
                where=f"{meta_path}: n_features",
                why=f"{meta.n_features}, {meta.stats} has {stats.mean.shape[0]} channels",
            )
        return replace(
            trained,
            backbone=meta.backbone,
            layers=meta.layers,
            mean=stats.mean,
            inverse=stats.inverse,
            index=trained.index if stats.index is None else stats.index,
        )
    if not trained.weights:
        raise FormatError(
            f"{meta.model} needs its network", where=f"{meta_path}: weights_pth", why=str(weights)
        )
    if isinstance(meta, EfficientadMeta):
        return replace(trained, model_size=meta.model_size, learning_rate=meta.learning_rate)
    return replace(trained, latent=meta.latent_dim, learning_rate=meta.learning_rate)


def read_network(path: Path) -> Trained:
    """``model.pth``: the state dict of anomalib's Lightning module, or of R1's VAE."""
    tensors = state_dict(read_torch_file(path))
    if tensors is None:
        raise FormatError("the checkpoint holds no tensors", where=str(path))
    return trained_from(tensors, "r1-pth", str(path))


def _with_network(trained: Trained, network: Trained, path: Path) -> Trained:
    if network.method != trained.method:
        raise FormatError(
            "meta.json and model.pth are of different models",
            where=str(path),
            why=f"{trained.method} and {network.method}",
        )
    return replace(trained, weights=network.weights, index=network.index)


def write_network(path: Path, trained: Trained) -> None:
    """Write ``model.pth``."""
    write_torch_file(path, state_of(trained))


def read_bank_npz(path: Path) -> Trained:
    """``memory_bank.npz``: the array ``embeddings`` [M, C], or the only float matrix in the file."""
    arrays = read_npz(path)
    matrices = [n for n, a in arrays.items() if a.ndim == 2 and a.dtype.kind == "f"]
    name = "embeddings" if "embeddings" in arrays or len(matrices) != 1 else matrices[0]
    if name not in arrays:
        held = ", ".join(f"{n} {list(a.shape)}" for n, a in sorted(arrays.items())[:10])
        raise FormatError(
            "no memory bank found in npz",
            where=str(path),
            why=f"it holds {held}",
            fix="store the bank as the float array 'embeddings' [rows, columns]",
        )
    bank = as_bank(arrays[name], f"{path}: {name}")
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


_SCHEMAS: Mapping[str, type[Meta]] = {
    "patchcore": PatchcoreMeta,
    "padim": PadimMeta,
    "efficientad": EfficientadMeta,
    "vae": VaeMeta,
}
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "patchcore": ("input_size", "bank", "ratio", "backbone", "layers"),
    "padim": ("input_size", "mean", "inverse", "backbone", "layers"),
    "efficientad": ("input_size", "learning_rate"),
    "vae": ("input_size", "learning_rate", "latent"),
}


def write_folder(path: Path, trained: Trained) -> None:
    """Write meta.json and what belongs beside it into the folder *path* (or beside meta.json).

    ``model.pth`` is written when the record holds network weights; EfficientAD and VAE need them.
    """
    folder = path.parent if path.suffix == ".json" else path
    schema = _SCHEMAS.get(trained.method)
    if schema is None:
        raise FormatError(f"no R1 folder is written for {trained.method}", where="method")
    need(trained, _NEEDED[trained.method], f"an R1 folder of {trained.method}")
    fields = _meta_fields(trained)
    try:
        meta = schema.model_validate({k: v for k, v in fields.items() if k in schema.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        raise FormatError(
            "R1's meta.json cannot hold this",
            where=".".join(str(part) for part in first["loc"]),
            why=first["msg"],
            fix="give another value with --set, or write another format",
        ) from error
    if trained.weights or trained.method in {"efficientad", "vae"}:
        write_network(folder / "model.pth", trained)
    if trained.method == "patchcore":
        write_bank_npz(folder / "memory_bank.npz", trained)
    elif trained.method == "padim":
        write_stats(folder / "stats.npz", trained)
    data = meta.model_dump(mode="json", exclude={"model"}, exclude_none=True)
    for new, old in OTHER_SPELLING.items():
        if old in data:
            data[new] = data[old]
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=2, sort_keys=True) + "\n"
    (folder / "meta.json").write_text(text, encoding="utf-8")


def _meta_fields(trained: Trained) -> dict[str, object]:
    """The values of every model's meta.json; a schema takes those it knows."""
    assert trained.input_size is not None
    decision = 0.5 if trained.decision is None else trained.decision
    return {
        "image_size": trained.input_size[0],
        "image_threshold": decision,
        "image_threshold_auto": decision if trained.threshold is None else trained.threshold,
        "raw_image_min": trained.minimum,
        "raw_image_max": trained.maximum,
        "backbone": trained.backbone,
        "layers": trained.layers,
        "coreset_ratio": trained.ratio,
        "n_features": None if trained.mean is None else trained.mean.shape[0],
        "model_size": trained.model_size or "small",
        "learning_rate": trained.learning_rate,
        "latent_dim": trained.latent,
    }
