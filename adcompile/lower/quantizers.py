"""Quantizers behind one interface: ours, AMD Quark, vai_q_onnx, ONNX Runtime.

A quantizer takes a :class:`QuantizeRequest` and returns a Q/DQ model. All get the same float model,
calibration data and list of nodes to leave in float.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import onnx_ir as ir

from adcompile.errors import ToolMissing, UsageError
from adcompile.lower.quantize import quantize
from adcompile.lower.vendor import (
    ORT_METHODS,
    QuantizeRequest,
    onnxruntime_method,
    quark,
    vai_q_onnx,
)

__all__ = ["QuantizeRequest", "Quantizer", "available", "quantizer"]

Quantizer = Callable[[QuantizeRequest], ir.Model]


def _own(request: QuantizeRequest) -> ir.Model:
    return quantize(request.model, request.data, request.scheme, request.floats)


# name -> (package it needs, "" for none; function)
_TABLE: dict[str, tuple[str, Quantizer]] = {
    "own": ("", _own),
    "quark": ("quark", quark),
    "vai_q_onnx": ("vai_q_onnx", vai_q_onnx),
    **{
        f"onnxruntime-{m}": ("", functools.partial(onnxruntime_method, method=m))
        for m in ORT_METHODS
    },
}
_PACKAGES = {"quark": "amd-quark", "vai_q_onnx": "the Ryzen AI installer (up to 1.3)"}


def quantizer(name: str) -> Quantizer:
    """The quantizer called *name*; ``auto`` is ours. Raises UsageError or ToolMissing."""
    wanted = "own" if name == "auto" else name
    if wanted not in _TABLE:
        raise UsageError(f"unknown quantizer {name!r}", fix=f"known: {', '.join(_TABLE)}")
    package, function = _TABLE[wanted]
    if package and importlib.util.find_spec(package) is None:
        raise ToolMissing(
            f"quantizer {name!r} is not installed",
            why=f"it comes with {_PACKAGES.get(package, package)}",
            fix="install it, or use --quantizer own",
        )
    return function


def available() -> list[str]:
    """Names of the quantizers that can be used on this machine."""
    return [n for n, (p, _) in _TABLE.items() if not p or importlib.util.find_spec(p)]
