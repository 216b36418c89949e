"""Quantizers behind one interface: ours, AMD Quark, vai_q_onnx, ONNX Runtime.

A quantizer takes a :class:`QuantizeRequest` and returns a Q/DQ model. All get the same float model,
calibration data and list of nodes to leave in float.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from adcompile.errors import ToolMissing, UsageError
from adcompile.interfaces import CalibrationData
from adcompile.lower.quantize import quantize
from adcompile.lower.scheme import Scheme


@dataclass(frozen=True)
class QuantizeRequest:
    """What to quantize, on what data, in which format. *work* is a scratch folder (may not exist)."""

    model: ir.Model
    data: CalibrationData
    scheme: Scheme
    floats: frozenset[str]
    work: Path


Quantizer = Callable[[QuantizeRequest], ir.Model]


def _own(request: QuantizeRequest) -> ir.Model:
    return quantize(request.model, request.data, request.scheme, request.floats)


# name -> (package it needs, "" for none; function)
_TABLE: dict[str, tuple[str, Quantizer]] = {
    "own": ("", _own),
}


def quantizer(name: str) -> Quantizer:
    """The quantizer called *name*. Raises UsageError or ToolMissing."""
    if name not in _TABLE:
        raise UsageError(f"unknown quantizer {name!r}", fix=f"known: {', '.join(_TABLE)}")
    package, function = _TABLE[name]
    if package and importlib.util.find_spec(package) is None:
        raise ToolMissing(
            f"quantizer {name!r} needs the package {package!r}",
            fix="install it, or use --quantizer own",
        )
    return function


def available() -> list[str]:
    """Names of the quantizers that can be used on this machine."""
    return [n for n, (p, _) in _TABLE.items() if not p or importlib.util.find_spec(p)]
