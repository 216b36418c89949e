"""Our own files as records: bank file, folder of ``adcompile fit``, category of a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adcompile.anomaly.bank import prepare_bank, read_bank, write_bank
from adcompile.anomaly.config import (
    BackboneConfig,
    EfficientadConfig,
    PatchcoreConfig,
    TrainedConfig,
    VaeConfig,
)
from adcompile.anomaly.formats.record import Array, Trained, need
from adcompile.anomaly.formats.state import vae_names
from adcompile.anomaly.model_folder import Fitted, load_fitted
from adcompile.anomaly.sections import read_container
from adcompile.anomaly.statistics import KINDS, Statistics, read_statistics
from adcompile.errors import FormatError
from adcompile.manifest import check_listed
from adcompile.runtime.categories import FILE, parse_category


def is_fitted(path: Path) -> bool:
    """True for a folder that ``adcompile fit`` wrote."""
    return (path / "config.yaml").is_file() and (path / "model.onnx").is_file()


def read_bank_file(path: Path) -> Trained:
    """Rows or statistics of a bank file; its contract id and producer go into the notes."""
    if read_container(path).kind in KINDS:
        found = read_statistics(path)
        remarks = (f"contract {found.contract}",) if found.contract else ()
        return Trained("padim", "bank", mean=found.mean, inverse=found.inverse(), notes=remarks)
    bank = read_bank(path)
    notes = [f"contract {bank.contract}"] if bank.contract else []
    if any(bank.producer):
        notes.append(f"producer {bank.producer.hex()}")
    return Trained("patchcore", "bank", bank=bank.original_rows(), notes=tuple(notes))


def write_bank_file(path: Path, trained: Trained) -> None:
    """Write a bank file: rows laid out for search, or PaDiM's statistics."""
    if trained.bank is None and trained.mean is not None and trained.inverse is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {"mean": trained.mean, "inverse": trained.inverse}
        path.write_bytes(Statistics(arrays).file())
        return
    need(trained, ("bank",), "a bank file")
    assert trained.bank is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bank(path, prepare_bank(trained.bank))


def read_fitted(path: Path) -> Trained:
    """The record of a fitted folder. Raises FormatError when the folder is damaged."""
    return record_of(load_fitted(path))


def record_of(fitted: Fitted) -> Trained:
    """What a fitted model has learned, as the other formats hold it."""
    config, score = fitted.config, fitted.contract.score
    if score is None:
        raise FormatError("a fitted model's contract has no score", where="contract.score")
    sizes = [spec.size for spec in fitted.contract.inputs.values()]
    statistics = fitted.statistics
    return Trained(
        method=config.method,
        source="fit",
        bank=fitted.bank,
        mean=_floats(statistics.get("mu")),
        inverse=_floats(statistics.get("cov_inv")),
        index=_index(statistics.get("index")),
        weights=_weights(fitted),
        threshold=score.threshold,
        minimum=score.minimum,
        maximum=score.maximum,
        pixel_threshold=score.pixel_threshold,
        decision=score.decision,
        log_mean=score.mean,
        log_std=score.std,
        neighbours=score.k if config.method == "patchcore" else None,
        ratio=config.coreset_ratio if isinstance(config, PatchcoreConfig) else None,
        backbone=Path(config.backbone).stem if isinstance(config, BackboneConfig) else "",
        layers=config.layers if isinstance(config, BackboneConfig) else (),
        input_size=sizes[0] if sizes else None,
        model_size=config.model_size if isinstance(config, EfficientadConfig) else "",
        learning_rate=config.learning_rate if isinstance(config, TrainedConfig) else None,
        latent=config.latent if isinstance(config, VaeConfig) else None,
    )


def read_category_folder(path: Path) -> Trained:
    """A category of a bundle: its bank or statistics, and its numbers, for the programs of other
    systems."""
    category = parse_category(path / FILE)
    check_listed(path, category.files)
    bank = mean = inverse = None
    if category.statistics:
        found = read_statistics(path / category.statistics)
        mean, inverse = found.mean, found.inverse()
    elif category.banks:
        bank = read_bank(path / category.banks[0]).original_rows()
    else:
        raise FormatError(
            "the category holds no bank file", where=f"{path}: banks", why=category.score.method
        )
    score = category.score
    return Trained(
        method=score.method,
        source="category",
        bank=bank,
        mean=mean,
        inverse=inverse,
        threshold=score.threshold,
        minimum=score.minimum,
        maximum=score.maximum,
        pixel_threshold=score.pixel_threshold,
        decision=score.decision,
        log_mean=score.mean,
        log_std=score.std,
        neighbours=None if bank is None else score.k,
        notes=(f"category {category.name}", *category.notes),
    )


def _floats(array: Array | None) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None:
    return None if array is None else np.asarray(array, dtype=np.float32)


def _index(array: Array | None) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None:
    return None if array is None else np.asarray(array, dtype=np.int64)


def _weights(fitted: Fitted) -> dict[str, Array]:
    """Network tensors under upstream's names. Scratch values of our training stay behind."""
    if fitted.config.method == "vae":
        return vae_names(fitted.weights, upstream=True)
    return dict(fitted.weights)
