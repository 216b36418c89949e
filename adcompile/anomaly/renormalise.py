"""Changing the normalisation at the end of a finished graph, without refitting."""

from __future__ import annotations

import onnx_ir as ir

from adcompile.anomaly import ops
from adcompile.anomaly.heads import GraphWriter, add_normalised
from adcompile.contract import CONTRACT_KEY, Contract, Score
from adcompile.errors import ModelError

_ENDS = frozenset({"Identity", "NormalizeScore", "NormalizeScoreCdf"})


def with_score(model: ir.Model, contract: Contract, score: Score) -> ir.Model:
    """A copy of a graph of ours whose ``score`` output follows another threshold or normalisation."""
    changed = model.clone()
    roles = {role: name for name, role in contract.roles.items()}
    final = _output(changed, roles.get("score", ""))
    raw = _output(changed, roles.get("raw_score", ""))
    node = final.producer()
    if node is None or node.op_type not in _ENDS or list(node.inputs) != [raw]:
        raise ModelError(
            "the graph's score is not made from its raw score by one normalisation",
            where=final.name or "",
            fix="refit the model",
        )
    name = final.name or "score"
    at = list(changed.graph.outputs).index(final)
    shape = final.shape
    changed.graph.outputs[at] = raw
    changed.graph.remove(node, safe=True)
    writer = GraphWriter(changed, "rescored")
    value = add_normalised(writer, raw, score)
    value.name, value.shape, value.dtype = name, shape, ir.DataType.FLOAT
    changed.graph.outputs[at] = value
    ops.add_functions(changed)
    done = Contract.model_validate(contract.model_dump() | {"score": score.model_dump()})
    changed.metadata_props[CONTRACT_KEY] = done.dump()
    return changed


def _output(model: ir.Model, name: str) -> ir.Value:
    for value in model.graph.outputs:
        if value.name == name:
            return value
    raise ModelError("the graph lacks an output its contract names", where=name or "(no role)")
