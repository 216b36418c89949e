"""PaDiM's statistics as a bank file: kind ``gaussian``, sections ``mean`` and ``inverse``.

``mean`` [C, P] and ``inverse`` [P, C, C] (inverse covariance per patch), float32, in the container
of ``sections.py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adcompile.anomaly.maps import Array
from adcompile.anomaly.sections import Container, pack_container, read_container
from adcompile.errors import FormatError

KIND = "gaussian"


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
