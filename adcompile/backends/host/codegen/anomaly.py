"""Operators of domain ``adcompile`` with kernels of their own; the others are inlined.

A nearest-neighbour search over a constant bank becomes a search over a prepared bank file. Without
a constant bank (or where several graphs need the plain rows) the function's body is inlined.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from adcompile.anomaly.statistics import ROLES
from adcompile.backends.host.codegen import literals
from adcompile.backends.host.codegen.call import Call, call
from adcompile.backends.host.codegen.facts import Facts, walk
from adcompile.backends.host.codegen.registry import Op, T, Table
from adcompile.ir.attributes import int_of
from adcompile.ir.graph import static_shape
from adcompile.ir.shapes import infer_shapes

DOMAIN = "adcompile"
FLOAT = (T.FLOAT,)
_SEARCHES = {"KnnSearch": 1, "PatchScorePaper": 3}  # op -> its bank input


def _knn(c: Call) -> str:
    searcher = c.searcher(c.need(1), c.attr_int("k", 9))
    k = str(c.attr_int("k", 9))
    return call("knn_search", c.out(0), c.out(1), "ws.scratch()", c.arg(0), searcher, k)


def _features(node: ir.Node) -> Sequence[ir.Value | None]:
    return node.inputs[:1]


def _score(function: str) -> Op:
    def emit(c: Call) -> str:
        grid = literals.shape(c.attr_ints("grid", (1, 1)))
        return call(function, c.out(0), c.out(1), c.arg(0), grid)

    return Op(emit, FLOAT)


def _distance(function: str) -> Op:
    def emit(c: Call) -> str:
        roles = ROLES[c.node.op_type]
        c.statistics({role: c.need(i) for i, role in enumerate(roles, 1)})
        return call(function, c.out(), "ws.scratch()", *c.pieces())

    return Op(emit, FLOAT, joins=_chooses_channels)


def _chooses_channels(node: ir.Node) -> bool:
    """A choice of channels needs no copy: the distance looks for each one where it lies."""
    index = None if len(node.inputs) < 2 else node.inputs[1]
    dims = None if index is None else static_shape(index)
    return (
        node.op_type == "Gather"
        and int_of(node, "axis") == 1
        and dims is not None
        and len(dims) == 1
    )


def _enlarge(c: Call) -> str:
    return call("map_upsample_blur", c.out(), "ws.scratch()", *c.args())


def _error(c: Call) -> str:
    return call("squared_error_map", c.out(), *c.args())


def _normalise(c: Call, x: Sequence[str]) -> str:
    numbers = (c.attr_float("threshold"), c.attr_float("minimum"), c.attr_float("maximum", 1.0))
    return call("normalized_score", x[0], *map(c.real, numbers))


TABLE: Table = {
    "KnnSearch": Op(_knn, FLOAT, reads=_features),
    "PatchScore": _score("patch_score"),
    "PatchScoreOwn": _score("patch_score_own"),
    "MahalanobisMap": _distance("mahalanobis_map"),
    "WhitenedMap": _distance("whitened_map"),
    "MapUpsampleBlur": Op(_enlarge, FLOAT),
    "SquaredErrorMap": Op(_error, FLOAT),
    "NormalizeScore": Op(None, FLOAT, expression=_normalise),
}


def without_functions(model: ir.Model) -> ir.Model:
    """*model* with every function inlined that has no kernel here; the given model is not changed.

    Values that appear have no types yet, so shapes are inferred again.
    """
    if not model.functions:
        return model
    copy = model.clone()
    searchable = _constant_banks(copy)

    def inline(function: ir.Function) -> bool:
        known = function.domain == DOMAIN and function.name in TABLE
        return not known or (function.name == "KnnSearch" and not searchable)

    InlinePass(criteria=inline)(copy)
    infer_shapes(copy)
    return copy


def _constant_banks(model: ir.Model) -> bool:
    """True when every nearest-neighbour search of the graph looks through a constant."""
    facts = Facts(model)
    nodes = [n for n in walk(facts.graph) if n.domain == DOMAIN and n.op_type in _SEARCHES]
    return all(facts.constant(n.inputs[_SEARCHES[n.op_type]]) is not None for n in nodes)
