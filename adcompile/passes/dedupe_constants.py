"""dedupe-constants: keep one copy of equal constants."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Pass, Report
from adcompile.ir.graph import is_constant
from adcompile.ir.model_io import subgraphs_of

Key: TypeAlias = "tuple[object, ...]"
PROBE = 64  # elements that are compared before a large tensor is read in full


@dataclass(frozen=True)
class DedupeConstants(Pass):
    """Equal initializers become one; a subgraph uses an equal constant of a graph around it.

    Tensors are compared by type, shape and bytes. A large one is read in full only when another of
    the same type and shape agrees in a sample, so weights outside of the file stay there.
    """

    name: ClassVar[str] = "dedupe-constants"
    summary: ClassVar[str] = "keep one copy of equal constants"

    def run(self, model: ir.Model, report: Report) -> bool:
        """Compare all constants and redirect readers to the first of each kind."""
        merged = _merge(model.graph, {}, {})
        if merged:
            report.applied(self.name, "", detail=f"{merged} constants merged")
        return merged > 0


def _merge(graph: ir.Graph, outer: dict[Key, list[ir.Value]], cache: dict[ir.Value, bytes]) -> int:
    known = {key: list(values) for key, values in outer.items()} if outer else {}
    merged = 0
    for value in list(graph.initializers.values()):
        if not is_constant(value) or value.is_graph_output():
            continue
        twin = _twin(value, known, cache)
        if twin is None:
            continue
        value.replace_all_uses_with(twin)
        del graph.initializers[value.name or ""]
        merged += 1
    for node in graph:
        for inner in subgraphs_of(node):
            merged += _merge(inner, known, cache)
    return merged


def _twin(
    value: ir.Value, known: dict[Key, list[ir.Value]], cache: dict[ir.Value, bytes]
) -> ir.Value | None:
    tensor = value.const_value
    if tensor is None or tensor.dtype == ir.DataType.STRING:
        return None
    key: Key = (tensor.dtype, tuple(tensor.shape.numpy()), _sample(tensor))
    group = known.setdefault(key, [])
    if group:
        mine = _digest(value, cache)
        for other in group:
            if _digest(other, cache) == mine:
                return other
    group.append(value)
    return None


def _sample(tensor: ir.TensorProtocol) -> bytes:
    array = tensor.numpy()
    if array.size <= 2 * PROBE:
        return array.tobytes()
    flat = array.reshape(-1)
    return np.concatenate([flat[:PROBE], flat[-PROBE:]]).tobytes()


def _digest(value: ir.Value, cache: dict[ir.Value, bytes]) -> bytes:
    found = cache.get(value)
    if found is None:
        tensor = value.const_value
        array = np.asarray(0) if tensor is None else tensor.numpy()
        digest = hashlib.sha256()
        flat = array.reshape(-1)
        for start in range(0, flat.size, 1 << 20):
            digest.update(flat[start : start + (1 << 20)].tobytes())
        found = cache[value] = digest.digest()
    return found
