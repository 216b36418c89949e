"""What a trained-model file holds, whatever its format; and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt

from adcompile.errors import FormatError

F32 = npt.NDArray[np.float32]
Array = npt.NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Trained:
    """One trained model. Fields a format does not hold are None or empty.

    ``bank`` [M, C]; ``mean`` [C, P], ``inverse`` [P, C, C] and ``index`` [C] belong to PaDiM;
    ``weights`` are network tensors by upstream's name; ``model_size`` and ``learning_rate`` belong
    to EfficientAD, ``latent`` and ``learning_rate`` to the VAE. ``threshold``, ``minimum``,
    ``maximum`` are on the raw scale; ``decision`` is on the normalised one. ``pixel_*`` belong to
    maps.
    """

    method: str
    source: str
    bank: F32 | None = None
    mean: F32 | None = None
    inverse: F32 | None = None
    index: npt.NDArray[np.int64] | None = None
    weights: Mapping[str, Array] = field(default_factory=dict[str, Array])
    threshold: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    pixel_threshold: float | None = None
    pixel_minimum: float | None = None
    pixel_maximum: float | None = None
    decision: float | None = None
    log_mean: float | None = None
    log_std: float | None = None
    neighbours: int | None = None
    ratio: float | None = None
    backbone: str = ""
    layers: tuple[str, ...] = ()
    input_size: tuple[int, int] | None = None
    train_rows: int | None = None
    model_size: str = ""
    learning_rate: float | None = None
    latent: int | None = None
    notes: tuple[str, ...] = ()

    def summary(self) -> dict[str, object]:
        """Everything but the arrays, as plain data; arrays by shape."""
        found: dict[str, object] = {}
        for name in _PLAIN:
            value: object = getattr(self, name)
            if value not in (None, "", ()):
                found[name] = value
        for name in ("bank", "mean", "inverse", "index"):
            array: Array | None = getattr(self, name)
            if array is not None:
                found[name] = list(array.shape)
        if self.weights:
            found["weights"] = len(self.weights)
        return found


_PLAIN = (
    "method", "source", "threshold", "minimum", "maximum", "pixel_threshold", "pixel_minimum",
    "pixel_maximum", "decision", "log_mean", "log_std", "neighbours", "ratio", "backbone",
    "layers", "input_size", "train_rows", "model_size", "learning_rate", "latent", "notes",
)  # fmt: skip


_FINITE = (
    "threshold", "minimum", "maximum", "pixel_threshold", "pixel_minimum", "pixel_maximum",
    "decision", "log_mean", "log_std", "learning_rate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: the field, and the sentence.

    ``lacking`` findings say that something is not there; a format that does not hold it either
    can still be written.
    """

    field: str
    text: str
    lacking: bool = False


def findings(trained: Trained) -> list[Finding]:
    """Everything inconsistent in a record; empty when it can be used as it is."""
    found: list[Finding] = []
    for name in ("bank", "mean", "inverse"):
        array = getattr(trained, name)
        if array is not None and not np.isfinite(array).all():
            found.append(Finding(name, "holds values that are not finite"))
    found += _bank_findings(trained)
    found += _gauss_findings(trained)
    for name in _FINITE:
        value: float | None = getattr(trained, name)
        if value is not None and not math.isfinite(value):
            found.append(Finding(name, f"is {value}"))
    low, high = trained.minimum, trained.maximum
    if low is not None and high is not None and not high > low:
        found.append(Finding("maximum", f"{high} is not above minimum {low}: no score can differ"))
    for name, weight in trained.weights.items():
        if weight.dtype.kind == "f" and not np.isfinite(weight).all():
            found.append(Finding(f"weights: {name}", "holds values that are not finite"))
            break
    if trained.ratio is not None and not 0.0 < trained.ratio <= 1.0:
        found.append(Finding("ratio", f"{trained.ratio} is not in (0, 1]"))
    return found


def _bank_findings(trained: Trained) -> list[Finding]:
    if trained.bank is None:
        return []
    found: list[Finding] = []
    rows = trained.bank.shape[0]
    if trained.bank.ndim != 2 or 0 in trained.bank.shape:
        return [Finding("bank", f"has shape {trained.bank.shape}, expected [rows, columns]")]
    k = trained.neighbours
    if k is not None and not 1 <= k <= rows:
        found.append(Finding("neighbours", f"k is {k}, the bank has {rows} rows"))
    return found


def _gauss_findings(trained: Trained) -> list[Finding]:
    mean, inverse, index = trained.mean, trained.inverse, trained.index
    if mean is None and inverse is None:
        alone = index is not None
        return [Finding("index", "a channel index without PaDiM statistics")] if alone else []
    if mean is None or inverse is None:
        return [Finding("mean" if mean is None else "inverse", "is missing")]
    if mean.ndim != 2 or inverse.shape != (mean.shape[1], mean.shape[0], mean.shape[0]):
        text = f"has shape {inverse.shape}, mean {mean.shape}: expected [P, C, C] and [C, P]"
        return [Finding("inverse", text)]
    if trained.method == "padim" and index is None:
        text = "is missing: the channels the statistics belong to are unknown"
        return [Finding("index", text, lacking=True)]
    if index is not None and (index.ndim != 1 or index.size != mean.shape[0]):
        return [Finding("index", f"has {index.size} entries, mean has {mean.shape[0]} channels")]
    return []


def refuse_findings(trained: Trained, title: str, where: str = "") -> None:
    """Raise FormatError for the first contradiction of a record; what is only lacking may pass."""
    for finding in findings(trained):
        if not finding.lacking:
            place = f"{where}: {finding.field}" if where else finding.field
            raise FormatError(title, where=place, why=finding.text)


def need(trained: Trained, names: tuple[str, ...], target: str) -> None:
    """Refuse to write *target* from a record that lacks any of *names*."""
    values = {name: getattr(trained, name) for name in names}
    lacking = [
        name
        for name, value in values.items()
        if value is None or (isinstance(value, tuple | str) and not value)
    ]
    if lacking:
        raise FormatError(
            f"{target} needs what this {trained.source} does not hold",
            where=", ".join(lacking),
            fix="give them: " + " ".join(f"--set {name}=VALUE" for name in lacking)
            if not set(lacking) & {"bank", "mean", "inverse", "index"}
            else "convert a file that holds them",
        )


def as_bank(value: object, where: str) -> F32:
    """A two-dimensional float32 array; half and double are converted, others refused."""
    array = cast("Array", value) if isinstance(value, np.ndarray) else None
    if array is None or array.ndim != 2 or array.dtype.kind != "f":
        kind = "nothing" if array is None else f"{array.dtype} {array.shape}"
        raise FormatError(
            "the memory bank must be a float matrix", where=where, why=f"found {kind}"
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def as_float(value: object, where: str) -> float | None:
    """A number or 0-d (or one-element) array as float; None stays None."""
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        array = cast("Array", value)
        value = array.reshape(()).item() if array.size == 1 else "an array"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FormatError("expected a number", where=where, why=f"found {type(value).__name__}")
    return float(value)


def as_int(value: object, where: str) -> int | None:
    """A whole number; None stays None."""
    number = as_float(value, where)
    if number is None:
        return None
    if not math.isfinite(number) or number != int(number):
        raise FormatError("expected a whole number", where=where, why=f"found {number}")
    return int(number)


def as_pair(value: object, where: str) -> tuple[int, int] | None:
    """An input size given as one number or as (height, width); None stays None."""
    if value is None:
        return None
    if not isinstance(value, (list, tuple)):
        side = as_int(value, where)
        return None if side is None else (side, side)
    sides = [as_int(item, where) for item in cast("list[object]", value)]
    if len(sides) != 2 or sides[0] is None or sides[1] is None:
        raise FormatError("expected height and width", where=where, why=f"found {sides}")
    return sides[0], sides[1]


def as_names(value: object, where: str) -> tuple[str, ...]:
    """A list of texts; a single text is a list of one, None an empty one."""
    if value is None:
        return ()
    items: list[object] = [value]
    if isinstance(value, (list, tuple)):
        items = list(cast("list[object]", value))
    if not all(isinstance(item, str) for item in items):
        raise FormatError("expected a list of names", where=where)
    return tuple(map(str, items))


def as_text(value: object, where: str) -> str:
    """A text; None is an empty one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise FormatError("expected a text", where=where, why=f"found {type(value).__name__}")
    return value
