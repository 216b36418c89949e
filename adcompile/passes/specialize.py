"""specialize: give the model's open input dimensions fixed sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from adcompile.dims import parse_dims
from adcompile.errors import ModelError, UsageError
from adcompile.interfaces import Pass, Report
from adcompile.ir.screen_tensors import MAX_TENSOR_BYTES


@dataclass(frozen=True)
class Specialize(Pass):
    """Fixes input shapes; ``shapes`` holds ``name:1x3x320x320`` or, for a single input, ``1x3x320x320``.

    A symbol that several inputs share gets the same size everywhere. With ``static`` set, an input
    that keeps an open dimension is an error.
    """

    name: ClassVar[str] = "specialize"
    summary: ClassVar[str] = "fix input shapes: specialize{shapes=[image:1x3x320x320]}"
    shapes: tuple[str, ...] = ()
    static: bool = False

    def run(self, model: ir.Model, report: Report) -> bool:
        """Set the shapes; a size that contradicts the model is a UsageError."""
        changed = False
        symbols: dict[str, int] = {}
        for name, dims in parse_shapes(self.shapes, model).items():
            changed = _fix(name, dims, model, symbols) or changed
        for value in model.graph.inputs:
            changed = _bind(value, symbols) or changed
        if changed:
            report.applied(self.name, "", detail=", ".join(self.shapes))
        if self.static:
            require_static_inputs(model)
        return changed


def real_inputs(model: ir.Model) -> list[ir.Value]:
    """Inputs that a caller must feed: those without a default."""
    return [value for value in model.graph.inputs if not value.is_initializer()]


def parse_shapes(texts: Iterable[str], model: ir.Model) -> dict[str, tuple[int, ...]]:
    """``name:1x3x320x320`` (also with ``=``) to name and dimensions."""
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, dims = _split(text, model)
        if name in found:
            raise UsageError(f"input {name!r} is given two shapes", where=text)
        found[name] = dims
    return found


def _split(text: str, model: ir.Model) -> tuple[str, tuple[int, ...]]:
    place = max(text.rfind(":"), text.rfind("="))
    name, shape = text[: max(place, 0)], text[place + 1 :]
    dims = parse_dims(shape)
    if dims is None:
        raise UsageError(
            "cannot read the input shape",
            where=text,
            fix="write name=1x3x320x320 (name=scalar for a single number)",
        )
    if not name:
        inputs = real_inputs(model)
        if len(inputs) != 1:
            raise UsageError("say which input the shape is for", where=text, fix=_listed(model))
        name = inputs[0].name or ""
    if math.prod(dims) > MAX_TENSOR_BYTES:
        raise UsageError("input shape is too large", where=text)
    return name, dims


def _listed(model: ir.Model) -> str:
    return "inputs: " + ", ".join(f"{v.name} {v.shape}" for v in real_inputs(model))


def _fix(name: str, dims: tuple[int, ...], model: ir.Model, symbols: dict[str, int]) -> bool:
    value = next((v for v in model.graph.inputs if v.name == name), None)
    if value is None:
        raise UsageError(f"the model has no input {name!r}", fix=_listed(model))
    old = value.shape
    if old is None:
        value.shape = ir.Shape(dims)
        return True
    if len(old) != len(dims):
        raise UsageError(
            f"input {name!r} has {len(old)} dimensions, the shape {len(dims)}",
            where=f"{name}: {old}",
            fix=_listed(model),
        )
    for axis, (have, want) in enumerate(zip(old.dims, dims, strict=True)):
        if isinstance(have, int):
            if have != want:
                raise UsageError(
                    f"input {name!r} has the fixed size {have} at dimension {axis}",
                    where=f"asked for {want}",
                    fix="export the model again with this size, or with a dynamic dimension",
                )
        elif have.value is not None and symbols.setdefault(have.value, want) != want:
            raise UsageError(
                f"dimension {have.value!r} gets two sizes",
                where=f"{name}: {symbols[have.value]} and {want}",
            )
    if all(isinstance(d, int) for d in old.dims):
        return False
    value.shape = ir.Shape(dims)
    return True


def _bind(value: ir.Value, symbols: dict[str, int]) -> bool:
    if value.shape is None:
        return False
    dims = [
        d if isinstance(d, int) or d.value is None else symbols.get(d.value, d)
        for d in value.shape.dims
    ]
    if all(a == b for a, b in zip(dims, value.shape.dims, strict=True)):
        return False
    value.shape = ir.Shape(dims)
    return True


def require_static_inputs(model: ir.Model) -> None:
    """Raise ModelError when an input still has an open dimension, saying how to fix it."""
    for value in real_inputs(model):
        if not isinstance(value.type, ir.TensorType):
            continue
        if value.shape is None or not value.shape.is_static():
            shape = "of unknown rank" if value.shape is None else str(value.shape)
            example = (
                "1x3x320x320"
                if value.shape is None
                else "x".join(str(d) if isinstance(d, int) else "N" for d in value.shape.dims)
            )
            raise ModelError(
                f"input {value.name!r} has an open dimension",
                where=f"{value.name} {shape}",
                why="a device runs fixed sizes only",
                fix=f"pass --input-shape {value.name}={example} with a number for each N",
            )
