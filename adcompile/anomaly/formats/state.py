"""State dicts of the anomaly networks: which model the tensor names say it is, and what they hold.

anomalib's Lightning modules save every network tensor as ``model.NAME``, the bare networks as
``NAME``; R1's ``model.pth`` is the former. R1's VAE has names of its own. Learned statistics
(memory bank, Gaussian, channel index) and the post-processor's numbers are kept apart from the
network's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np

from adcompile.anomaly.formats.record import Array, Trained, as_bank, as_float
from adcompile.errors import FormatError

Tensors = Mapping[str, object]

_BANK, _MEAN, _INVERSE, _INDEX = (
    "memory_bank",
    "gaussian.mean",
    "gaussian.inv_covariance",
    "idx",
)
_LEARNED = frozenset({_BANK, _MEAN, _INVERSE, _INDEX})
_STUDENT = "student.conv1.weight"
_VAE = frozenset({"mu.weight", "logvar.weight", "fc_dec.weight"})
_OUTSIDE = ("post_processor.", "pre_processor.", "evaluator.", "image_metrics.", "pixel_metrics.")

NUMBERS: Mapping[str, tuple[str, ...]] = {
    "threshold": ("post_processor._image_threshold", "image_threshold.value"),
    "pixel_threshold": ("post_processor._pixel_threshold", "pixel_threshold.value"),
    "minimum": ("post_processor.image_min", "min_max.min", "normalization_metrics.min"),
    "maximum": ("post_processor.image_max", "min_max.max", "normalization_metrics.max"),
    "pixel_minimum": ("post_processor.pixel_min",),
    "pixel_maximum": ("post_processor.pixel_max",),
    "log_mean": ("training_distribution.image_mean",),
    "log_std": ("training_distribution.image_std",),
}
"""Field of a record to the names its number has had, newest first."""
_NUMBER_NAMES = frozenset(name for names in NUMBERS.values() for name in names)

# our VAE's layers -> R1's
_VAE_NAMES = {"mean": "mu", "log_variance": "logvar", "expand": "fc_dec"}


def trained_from(tensors: Tensors, source: str, where: str) -> Trained:
    """The record of a state dict. Raises FormatError when its names are of no known model."""
    network = _network(tensors)
    learned = {name: network.pop(name) for name in _LEARNED & network.keys()}
    numbers = {field: _number(tensors, names, where) for field, names in NUMBERS.items()}
    trained = _model(learned, network, source, where)
    return _with(trained, numbers)


def _with(trained: Trained, numbers: Mapping[str, float | None]) -> Trained:
    return replace(trained, **numbers)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _model(
    learned: Mapping[str, Array], network: Mapping[str, Array], source: str, where: str
) -> Trained:
    if _BANK in learned:
        bank = as_bank(learned[_BANK], f"{where}: {_BANK}")
        return Trained("patchcore", source, bank=bank, weights=network)
    if _MEAN in learned:
        lacking = next((n for n in (_INVERSE, _INDEX) if n not in learned), None)
        if lacking is not None:
            raise FormatError("PaDiM statistics are incomplete", where=f"{where}: model.{lacking}")
        return Trained(
            "padim",
            source,
            mean=learned[_MEAN].astype(np.float32),
            inverse=learned[_INVERSE].astype(np.float32),
            index=learned[_INDEX].astype(np.int64),
            weights=network,
        )
    if _STUDENT in network:
        return Trained("efficientad", source, weights=network)
    if network.keys() >= _VAE:
        return Trained("vae", source, weights=network)
    names = ", ".join(sorted(network)[:5])
    raise FormatError(
        "the checkpoint is of no known anomaly model",
        where=where,
        why=f"{len(network)} tensors: {names} …",
        fix="PatchCore, PaDiM, EfficientAD and R1's VAE are read",
    )


def _network(tensors: Tensors) -> dict[str, Array]:
    """Tensors of the model itself by their bare names: no metric, no post-processor."""
    found: dict[str, Array] = {}
    for name, value in tensors.items():
        outside = name in _NUMBER_NAMES or name.startswith(_OUTSIDE) or name.startswith("_")
        if isinstance(value, np.ndarray) and not outside:
            found[name.removeprefix("model.")] = cast("Array", value)
    return found


def _number(tensors: Tensors, names: tuple[str, ...], where: str) -> float | None:
    for name in names:
        if name in tensors:
            value = as_float(tensors[name], f"{where}: {name}")
            return None if value is None or not np.isfinite(value) else value
    return None


def state_of(trained: Trained) -> dict[str, object]:
    """The Lightning state dict of a record: what anomalib 2.x and R1's converter load.

    Raises FormatError for PatchCore and PaDiM records without network weights: such a file
    would load only in part.
    """
    if not trained.weights:
        raise FormatError(
            "a state dict needs the network's weights",
            where="weights",
            why=f"this {trained.source} holds only what was learned on top of the network",
            fix="convert an anomalib checkpoint or R1's model.pth, or write another format",
        )
    if trained.method == "vae":
        return dict(trained.weights)
    state: dict[str, object] = {f"model.{name}": value for name, value in trained.weights.items()}
    learned = {
        _BANK: trained.bank,
        _MEAN: trained.mean,
        _INVERSE: trained.inverse,
        _INDEX: trained.index,
    }
    state |= {f"model.{name}": value for name, value in learned.items() if value is not None}
    if trained.method != "efficientad":
        state["_is_fitted"] = np.array([True])  # anomalib 2.x asks it before it predicts
    for field, names in NUMBERS.items():
        if names[0].startswith("post_processor."):
            value: float | None = getattr(trained, field)
            state[names[0]] = np.array(np.nan if value is None else value, np.float32)
    return state


def vae_names(weights: Mapping[str, Array], *, upstream: bool) -> dict[str, Array]:
    """Tensors of our VAE under R1's names, or back."""
    table = _VAE_NAMES if upstream else {new: old for old, new in _VAE_NAMES.items()}
    renamed: dict[str, Array] = {}
    for name, value in weights.items():
        layer, dot, rest = name.partition(".")
        renamed[table.get(layer, layer) + dot + rest] = value
    return renamed
