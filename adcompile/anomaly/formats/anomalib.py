"""Checkpoints of anomalib: PatchCore, PaDiM and EfficientAD; versions 0.x to 2.x.

A ``.ckpt`` holds a ``state_dict`` and the hyper-parameters; a ``.pt`` written by anomalib's torch
export holds the pickled network under ``model``, which is read as its state dict. Every other
object inside is passed over unread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from adcompile.anomaly.formats.record import (
    Trained,
    as_float,
    as_int,
    as_names,
    as_text,
    need,
)
from adcompile.anomaly.formats.state import Tensors, state_of, trained_from
from adcompile.anomaly.formats.torch_file import read_torch_file
from adcompile.anomaly.formats.torch_write import write_torch_file
from adcompile.errors import FormatError

_HYPER: Mapping[str, str] = {
    "backbone": "backbone",
    "num_neighbors": "neighbours",
    "coreset_sampling_ratio": "ratio",
    "model_size": "model_size",
    "lr": "learning_rate",
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


def is_wrapped(content: object) -> bool:
    """True when the tensors lie inside a checkpoint, not at the top."""
    mapping = cast("dict[object, object]", content) if isinstance(content, dict) else {}
    return isinstance(mapping.get("state_dict", mapping.get("model")), dict)


def read_checkpoint(path: Path) -> Trained:
    """Read a ``.ckpt``, an exported ``.pt``, or a bare state dict with anomalib's names."""
    content = read_torch_file(path)
    tensors = state_dict(content)
    if tensors is None:
        raise FormatError("the checkpoint holds no tensors", where=str(path))
    return _hyper(trained_from(tensors, "anomalib", str(path)), content, path)


def _hyper(trained: Trained, content: object, path: Path) -> Trained:
    mapping = cast("dict[object, object]", content) if isinstance(content, dict) else {}
    raw = mapping.get("hyper_parameters")
    hyper = cast("dict[object, object]", raw) if isinstance(raw, dict) else {}
    return replace(
        trained,
        backbone=as_text(hyper.get("backbone"), f"{path}: backbone"),
        layers=as_names(hyper.get("layers"), f"{path}: layers"),
        neighbours=as_int(hyper.get("num_neighbors"), f"{path}: num_neighbors"),
        ratio=as_float(hyper.get("coreset_sampling_ratio"), f"{path}: coreset_sampling_ratio"),
        model_size=as_text(hyper.get("model_size"), f"{path}: model_size"),
        learning_rate=as_float(hyper.get("lr"), f"{path}: lr"),
    )


def write_checkpoint(path: Path, trained: Trained) -> None:
    """Write a ``.ckpt`` that anomalib 2.x loads with ``load_from_checkpoint``.

    Raises FormatError when the record lacks network weights or the method is none of anomalib's.
    """
    if trained.method not in {"patchcore", "padim", "efficientad"}:
        raise FormatError(
            f"no anomalib checkpoint is written for {trained.method}", where="method"
        )
    hyper: dict[str, object] = {}
    for theirs, field in _HYPER.items():
        value: object = getattr(trained, field)
        if value not in (None, ""):
            hyper[theirs] = value
    if trained.layers:
        hyper["layers"] = list(trained.layers)
    if trained.method == "padim":
        need(trained, ("mean", "inverse", "index"), "an anomalib checkpoint")
        assert trained.mean is not None
        hyper["n_features"] = trained.mean.shape[0]
    if trained.method != "efficientad":
        hyper["pre_trained"] = False  # all weights are in the file
    content: dict[str, object] = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "2.0.0",
        "state_dict": state_of(trained),
        "hyper_parameters": hyper,
    }
    write_torch_file(path, content)
