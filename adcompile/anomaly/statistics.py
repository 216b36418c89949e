"""PaDiM's statistics as a bank file, in the container of ``sections.py``, float32.

======== ================ ===========================================================================
kind     op that reads it sections
======== ================ ===========================================================================
whitened WhitenedMap      ``mean`` [C, P], ``factor`` [B, C·(C + 1)/2, 16]: triangular factors of the
                          inverse covariances (``whiten.py``)
gaussian MahalanobisMap   ``mean`` [C, P], ``inverse`` [P, C, C]: the inverse covariances as they are.
                          Bundles from before there were factors, matrices that rounding left without
                          a factor, and files of ``bank convert``, which change no digit
======== ================ ===========================================================================

In a bundle this file is the only place of these arrays: the part's ONNX model names it as external
data, the generated C++ program reads it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from adcompile.anomaly.maps import Array
from adcompile.anomaly.sections import Container, pack_container, places, read_container
from adcompile.anomaly.whiten import fits, inverse_of
from adcompile.errors import FormatError
from adcompile.ir.emit import Placed
from adcompile.ir.graph import DOMAIN, constant

FILE = "statistics.adbank"
USE = "statistics"  # of ``PartRecord.files``

ROLES: Mapping[str, tuple[str, str]] = {
    "WhitenedMap": ("mean", "factor"),
    "MahalanobisMap": ("mean", "inverse"),
}
"""The ops that measure PaDiM's distance, and what their constant inputs are."""

_KINDS = {("mean", "factor"): "whitened", ("mean", "inverse"): "gaussian"}
KINDS = tuple(_KINDS.values())


@dataclass(frozen=True)
class Statistics:
    """The arrays of one distance by role: ``mean`` and ``factor``, or ``mean`` and ``inverse``.

    FormatError when they do not fit together or hold something that is not finite.
    """

    arrays: Mapping[str, Array]
    contract: str = ""
    where: str = "statistics"

    def __post_init__(self) -> None:
        mean = self.arrays["mean"]
        other = next(name for name in self.arrays if name != "mean")
        matrix = self.arrays[other]
        square = mean.ndim == 2 and matrix.shape == (mean.shape[1], mean.shape[0], mean.shape[0])
        if not (fits(mean, matrix) if other == "factor" else square):
            raise FormatError(
                "mean and inverse covariance disagree",
                where=self.where,
                why=f"mean {mean.shape} and {other} {matrix.shape}; expected [C, P] and "
                + ("[B, C·(C + 1)/2, 16]" if other == "factor" else "[P, C, C]"),
            )
        for name, array in self.arrays.items():
            if not np.isfinite(array).all():
                raise FormatError(f"{name} holds NaN or an infinity", where=self.where)

    @property
    def kind(self) -> str:
        """The kind of their bank file."""
        return _KINDS[self._roles]

    @property
    def mean(self) -> Array:
        """Means [C, P]."""
        return self.arrays["mean"]

    def inverse(self) -> Array:
        """Inverse covariances [P, C, C]. Raises FormatError where factors are too large for them."""
        if "inverse" in self.arrays:
            return self.arrays["inverse"]
        with np.errstate(over="ignore"):
            found = inverse_of(self.arrays["factor"], self.mean.shape[1])
        if not np.isfinite(found).all():
            raise FormatError("factors give inverse covariances beyond float32", where=self.where)
        return found

    def equal(self, other: Statistics) -> bool:
        """True when all numbers are the same."""
        if self.kind != other.kind:
            return False
        pairs = ((self.arrays[role], other.arrays[role]) for role in self._roles)
        return all(a is b or np.array_equal(a, b) for a, b in pairs)

    def offsets(self) -> dict[str, int]:
        """Where each array lies in the file, in bytes."""
        return places(self._container(""))

    def file(self, contract: str = "") -> bytes:
        """The bytes of the bank file."""
        return pack_container(self._container(contract or self.contract))

    @property
    def _roles(self) -> tuple[str, str]:
        return ("mean", next(name for name in self.arrays if name != "mean"))

    def _container(self, contract: str) -> Container:
        sections = {role: self.arrays[role] for role in self._roles}
        return Container(self.kind, sections, contract)


def statistics_node(model: ir.Model) -> ir.Node | None:
    """The model's first op that measures PaDiM's distance."""
    return next((n for n in model.graph if n.domain == DOMAIN and n.op_type in ROLES), None)


def statistics_of(model: ir.Model) -> Statistics | None:
    """The statistics of a model's first distance; None without one whose are constants."""
    node = statistics_node(model)
    if node is None:
        return None
    arrays: dict[str, Array] = {}
    for role, value in zip(ROLES[node.op_type], node.inputs[1:], strict=True):
        array = constant(value)
        if array is None:
            return None
        arrays[role] = np.asarray(array, np.float32)
    return Statistics(arrays)


def without_statistics(model: ir.Model, found: Statistics) -> ir.Model:
    """A copy of *model* that names ``FILE``, beside it, as the place of its statistics *found*."""
    copy = model.clone()
    node = statistics_node(copy)
    assert node is not None
    offsets = found.offsets()
    for role, value in zip(ROLES[node.op_type], node.inputs[1:], strict=True):
        assert value is not None
        array = found.arrays[role]
        value.const_value = Placed(
            FILE,
            offsets[role],
            array.nbytes,
            ir.DataType.FLOAT,
            shape=ir.Shape(array.shape),
            name=value.name or role,
        )
    return copy


def read_statistics(source: Path | bytes) -> Statistics:
    """The statistics of a file of either kind; FormatError naming what is wrong."""
    where = "statistics" if isinstance(source, bytes) else source.name
    content = read_container(source)
    roles = tuple(content.sections)
    if _KINDS.get((roles[0], roles[-1])) != content.kind or len(roles) != 2:
        raise FormatError("not a file of statistics", where=f"{where}: kind", why=content.kind)
    arrays: dict[str, Array] = {}
    for name, section in content.sections.items():
        if section.dtype != np.float32:
            raise FormatError(f"{name} is {section.dtype}, expected float32", where=where)
        arrays[name] = np.asarray(section, dtype=np.float32)
    return Statistics(arrays, content.contract, where)
