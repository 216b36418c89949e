"""Threshold and range: where a graph holds them, and how a new score contract gets into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from adcompile.anomaly.chain import RawNames
from adcompile.anomaly.recognise.algebra import made_by, scalar
from adcompile.contract import Score
from adcompile.errors import UsageError
from adcompile.interfaces import Part
from adcompile.ir.constants import add_constant
from adcompile.ir.graph import DOMAIN
from adcompile.rewrite.surgery import Names


def check_reachable(parts: Sequence[Part], score: Score) -> None:
    """Refuse a detector whose normalisation was lowered with a device part: it cannot be changed."""
    if score.normalisation == "none":
        return
    if any(_normalisers(part) for part in parts if part.placement == "host"):
        return
    raise UsageError(
        "threshold and range are not on the host, where they could be measured again",
        why="no host part normalises the score",
        fix="--data goes with --head host (the default)",
    )


def _normalisers(part: Part) -> list[ir.Node]:
    return [
        node
        for node in part.model.graph
        if node.domain == DOMAIN and node.op_type.startswith("NormalizeScore")
    ]


def with_new_score(part: Part, raw: RawNames, old: Score, new: Score) -> Part:
    """The part with threshold and range of its normalisations and decisions as *new* says."""
    part = replace(part, model=part.model.clone())
    for node in _normalisers(part):
        heat = len(node.outputs[0].shape or ()) == 4
        values = {
            "threshold": new.pixel_threshold if heat else new.threshold,
            "minimum": new.minimum,
            "maximum": new.maximum,
            "std": new.std,
        }
        for name in node.attributes:
            value = values.get(name)
            if value is not None:
                node.attributes[name] = ir.AttrFloat32(name, value)
    _move_raw_decisions(part.model, raw, old, new)
    return part


def _move_raw_decisions(model: ir.Model, raw: RawNames, old: Score, new: Score) -> None:
    """Comparisons of a raw score or map with its old threshold get the new one."""
    pairs = {
        raw.score: (old.threshold, new.threshold),
        raw.map: (old.pixel_threshold, new.pixel_threshold),
    }
    names = Names(model)
    for value in [v for n in model.graph for v in n.outputs if v.name in pairs]:
        before, now = pairs[value.name or ""]
        for node in value.consumers():
            decision = made_by(node.outputs[0], "Greater", "GreaterOrEqual")
            limit = None if decision is None else scalar(node.inputs[1])
            if limit is None or now is None or (before is not None and limit != before):
                continue
            name = names.fresh(f"{node.name}/threshold")
            changed = add_constant(model.graph, name, np.array(now, np.float32))
            node.replace_input_with(1, changed)


def settled(score: Score, scores: Sequence[float]) -> Score:
    """A strict threshold moved to the middle of its gap between two of *scores*.

    A best-F1 threshold lies a float32 step below a score; the graph's normalisation rounds that
    step away, and ``>`` would decide that image otherwise than the threshold says.
    """
    if score.threshold is None or score.compare != ">" or score.normalisation == "none":
        return score
    above = [s for s in scores if s > score.threshold]
    under = [s for s in scores if s <= score.threshold]
    if not above or not under:
        return score
    middle = float(np.float32((min(above) + max(under)) / 2))
    return score.model_copy(update={"threshold": middle})
