"""PaDiM's statistics as a bank file: kind ``gaussian``, sections ``mean`` and ``inverse``.

``mean`` [C, P] and ``inverse`` [P, C, C] (inverse covariance per patch), float32, in the container
of ``sections.py``.

In a bundle this file is the only place of these arrays: the part's ONNX model names it as external
data, the generated C++ program reads it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from adcompile.anomaly.maps import Array
from adcompile.anomaly.sections import Container, pack_container, places, read_container
from adcompile.errors import FormatError
from adcompile.ir.emit import Placed
from adcompile.ir.graph import DOMAIN, constant

KIND = "gaussian"
FILE = "statistics.adbank"
USE = "statistics"  # of ``PartRecord.files``


@dataclass(frozen=True)
class Statistics:
    """The arrays of a model's distance, and the names of their initializers."""

    mean: Array
    inverse: Array
    names: tuple[str, str]

    def file(self, contract: str = "") -> bytes:
        """The bytes of the bank file."""
        return pack_statistics(self.mean, self.inverse, contract)


def statistics_of(model: ir.Model) -> Statistics | None:
    """The statistics of a model's first MahalanobisMap; None without one whose are constants."""
    for node in model.graph:
        if node.domain != DOMAIN or node.op_type != "MahalanobisMap":
            continue
        values = node.inputs[1:3]
        found = [constant(value) for value in values]
        mean, inverse = (None if a is None else np.asarray(a, np.float32) for a in found)
        names = tuple(value.name or "" for value in values if value is not None)
        if mean is None or inverse is None or len(names) != 2:
            return None
        return Statistics(mean, inverse, (names[0], names[1]))
    return None


def without_statistics(model: ir.Model, found: Statistics, file: str = FILE) -> ir.Model:
    """A copy of *model* that names *file*, beside it, as the place of its statistics."""
    copy = model.clone()
    offsets = offsets_of(found.mean, found.inverse)
    for name, array, offset in zip(found.names, (found.mean, found.inverse), offsets, strict=True):
        value = copy.graph.initializers[name]
        value.const_value = Placed(
            file, offset, array.nbytes, ir.DataType.FLOAT, shape=ir.Shape(array.shape), name=name
        )
    return copy


def offsets_of(mean: Array, inverse: Array) -> tuple[int, int]:
    """Where mean and inverse lie in their file, in bytes."""
    found = places(Container(KIND, {"mean": mean, "inverse": inverse}))
    return found["mean"], found["inverse"]


def pack_statistics(mean: Array, inverse: Array, contract: str = "") -> bytes:
    """The bytes of the file; FormatError when the two do not fit together."""
    _check(mean, inverse, "statistics")
    return pack_container(Container(KIND, {"mean": mean, "inverse": inverse}, contract))


def read_statistics(source: Path | bytes) -> tuple[Array, Array, str]:
    """Mean, inverse and contract id of a file; FormatError naming what is wrong."""
    where = "statistics" if isinstance(source, bytes) else source.name
    content = read_container(source)
    if content.kind != KIND or set(content.sections) != {"mean", "inverse"}:
        raise FormatError("not a file of statistics", where=f"{where}: kind", why=content.kind)
    for name, section in content.sections.items():
        if section.dtype != np.float32:
            raise FormatError(f"{name} is {section.dtype}, expected float32", where=where)
    mean = np.asarray(content.sections["mean"], dtype=np.float32)
    inverse = np.asarray(content.sections["inverse"], dtype=np.float32)
    _check(mean, inverse, where)
    return mean, inverse, content.contract


def _check(mean: Array, inverse: Array, where: str) -> None:
    fits = mean.ndim == 2 and inverse.shape == (mean.shape[1], mean.shape[0], mean.shape[0])
    if not fits:
        raise FormatError(
            "mean and inverse covariance disagree",
            where=where,
            why=f"{mean.shape} and {inverse.shape}; expected [C, P] and [P, C, C]",
        )
    for name, array in (("mean", mean), ("inverse", inverse)):
        if not np.isfinite(array).all():
            raise FormatError(f"{name} holds NaN or an infinity", where=where)
