"""The score contract that a graph with anomaly ops fulfils, for models that declare none."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import onnx_ir as ir

from adcompile.anomaly.maps import Border, Upsampling, upsample_blur_matrices
from adcompile.anomaly.recognise.algebra import made_by, scalar
from adcompile.anomaly.statistics import ROLES
from adcompile.contract import Contract, Score
from adcompile.ir.attributes import float_of, int_of
from adcompile.ir.graph import DOMAIN, constant, static_shape

_HEADS = ("KnnSearch", *ROLES, "SquaredErrorMap")
_WEIGHTING = {
    "PatchScore": "none",
    "PatchScoreOwn": "own_neighbours",
    "PatchScorePaper": "paper",
}


def head_nodes(model: ir.Model, *names: str) -> list[ir.Node]:
    """Nodes of the adcompile domain, of the given ops only when there are any."""
    return [n for n in model.graph if n.domain == DOMAIN and (not names or n.op_type in names)]


def describe(model: ir.Model, contract: Contract) -> Contract:
    """*contract* with score formula and roles read from the graph; unchanged when it has them.

    Only what the graph shows is filled in: an exported graph says the width of its score range,
    not its ends, so ``minimum`` and ``maximum`` may be any two numbers that far apart with the
    threshold between them.
    """
    heads = head_nodes(model, *_HEADS)
    if contract.score is not None or not heads:
        return contract
    score, roles = _outputs(model)
    if not score:
        return contract
    value = next(v for v in model.graph.outputs if v.name == score)
    fields = _method(model, heads) | _map_fields(model) | _normalisation(value)
    return contract.model_copy(
        update={"score": Score.model_validate(fields), "roles": {**contract.roles, **roles}}
    )


def batch_of(model: ir.Model) -> int:
    """Images per run: the first input's leading dimension, 1 while it is free."""
    shape = model.graph.inputs[0].shape if model.graph.inputs else None
    first = shape[0] if shape is not None and len(shape) else 1
    return first if isinstance(first, int) else 1


def shape_for(value: ir.Value, images: int) -> tuple[int, ...] | None:
    """A value's shape for *images* images: a free leading dimension counts them."""
    if value.shape is None or not len(value.shape):
        return static_shape(value)
    first, *rest = value.shape.dims
    if not all(isinstance(d, int) for d in rest):
        return None
    leading = first if isinstance(first, int) else images
    return (leading, *(d for d in rest if isinstance(d, int)))


def _outputs(model: ir.Model) -> tuple[str, dict[str, str]]:
    """Name of the score output ("" without one), and roles of score and map outputs."""
    roles: dict[str, str] = {}
    images = batch_of(model)
    score = ""
    for value in model.graph.outputs:
        shape = shape_for(value, images)
        if value.dtype != ir.DataType.FLOAT or shape is None:
            continue
        name = value.name or ""
        if math.prod(shape) == images:
            roles[name] = "raw_score" if score else "score"
            score = score or name
        elif len(shape) == 4 and shape[1] == 1:
            roles[name] = "map"
    return score, roles


def _method(model: ir.Model, heads: list[ir.Node]) -> dict[str, object]:
    kinds = {node.op_type for node in heads}
    if "KnnSearch" in kinds:
        search = next(n for n in heads if n.op_type == "KnnSearch")
        rooted = any(n.op_type == "Sqrt" for n in search.outputs[0].consumers())
        scorer = next(iter(head_nodes(model, *_WEIGHTING)), None)
        weighting = "none" if scorer is None else _WEIGHTING[scorer.op_type]
        k = int_of(search, "k", 9)
        if scorer is not None and weighting == "paper":
            k = int_of(scorer, "k", 9)
        metric = "l2" if rooted else "squared_l2"
        return {"method": "patchcore", "metric": metric, "k": k, "weighting": weighting}
    if (form := next((n for n in heads if n.op_type in ROLES), None)) is not None:
        rooted = any(n.op_type == "Sqrt" for n in form.outputs[0].consumers())
        return {"method": "padim", "k": 1, "square_root": rooted}
    reconstruction = any(v is not None and v.is_graph_input() for n in heads for v in n.inputs)
    return {"method": "vae" if reconstruction else "efficientad", "k": 1}


def _map_fields(model: ir.Model) -> dict[str, object]:
    """Enlargement and blur behind the matrices of the map."""
    node = next(iter(head_nodes(model, "MapUpsampleBlur")), None)
    if node is None:
        return {"map_upsampling": "none"}
    rows, columns = constant(node.inputs[1]), constant(node.inputs[2])
    if rows is None or columns is None:
        return {}
    size = (rows.shape[0], columns.shape[1])
    grid = (rows.shape[1], columns.shape[0])
    if max(size) <= 16:
        return {"map_upsampling": "bilinear"}
    modes: tuple[Upsampling, ...] = ("nearest", "bilinear")
    borders: tuple[Border, ...] = ("reflect", "symmetric")
    for mode, sigma, border in product(modes, (0.0, 4.0), borders):
        wanted, _ = upsample_blur_matrices(grid, size, mode, sigma, border=border)
        if np.allclose(wanted, rows, atol=1e-3):
            return {
                "map_upsampling": mode,
                "blur_sigma": sigma,
                "blur_border": border,
                "map_size": size,
            }
    return {"map_upsampling": "bilinear"}


def _normalisation(score: ir.Value) -> dict[str, object]:
    """Threshold and range at the end of the graph, and the comparison behind the score."""
    fields: dict[str, object] = {"normalisation": "none", "compare": ">"}
    node = score.producer()
    if node is not None and node.domain == DOMAIN and node.op_type == "NormalizeScore":
        low, high = float_of(node, "minimum"), float_of(node, "maximum", 1.0)
        threshold = float_of(node, "threshold")
        if not low <= threshold <= high:
            low, high = threshold - (high - low) / 2, threshold + (high - low) / 2
        fields |= {
            "normalisation": "min_max",
            "threshold": threshold,
            "minimum": low,
            "maximum": high,
        }
    for reader in score.consumers():
        decision = made_by(reader.outputs[0], "Greater", "GreaterOrEqual")
        limit = None if decision is None else scalar(decision.inputs[1])
        if decision is None or limit is None:
            continue
        fields["compare"] = ">" if decision.op_type == "Greater" else ">="
        fields["decision" if fields["normalisation"] == "min_max" else "threshold"] = limit
    return fields
