"""raise-anomaly: recognise anomaly heads that others exported; write them as adcompile ops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from adcompile.anomaly import ops
from adcompile.anomaly.recognise import gaussian, normal, search
from adcompile.anomaly.recognise.maps import raise_maps
from adcompile.anomaly.recognise.score import raise_scores
from adcompile.interfaces import Report
from adcompile.ir.graph import DOMAIN, opset
from adcompile.passes.common_subexpressions import CommonSubexpressions
from adcompile.passes.dead_code import DeadCode
from adcompile.passes.infer_shapes import InferShapes
from adcompile.passes.merge_reshapes import MergeReshapes
from adcompile.rewrite.driver import Driver, RewritePass
from adcompile.rewrite.rules import Rule

SCORES = ("PatchScore", "PatchScoreOwn", "PatchScorePaper")
OLDEST, NEWEST = 13, 21  # opsets that the bodies of the ops are written for


@dataclass(frozen=True)
class RaiseAnomaly(RewritePass):
    """Nearest-neighbour search over a constant bank, Mahalanobis distance, student/teacher and
    reconstruction errors, PatchCore's image scores, map enlargement and blur, normalisation.

    The score and the map are recognised by running them, so that every way of exporting them is.
    """

    name: ClassVar[str] = "raise-anomaly"
    summary: ClassVar[str] = "anomaly heads become adcompile ops"
    steps: ClassVar[Mapping[str, str]] = {
        **{f"score-{op}": f"the image score behind a search becomes {op}" for op in SCORES},
        "map-upsample-blur": "enlargement and blur of a map become UpsampleBlur",
    }
    rules: ClassVar[Sequence[Rule]] = (*search.RULES, *gaussian.RULES, *normal.RULES)

    def run(self, model: ir.Model, report: Report) -> bool:
        """Searches and forms first, then the score, the map and the normalisation behind them."""
        if not OLDEST <= opset(model) <= NEWEST:
            return False
        heads = (*search.RULES, *gaussian.RULES)
        changed = Driver(model, heads, report).run()
        if not any(node.domain == DOMAIN for node in model.graph):
            return changed
        _tidy(model, report)  # two selections of one distance are one search now
        changed = raise_scores(model, report) or changed
        _tidy(model, report)
        changed = raise_maps(model, report) or changed
        changed = Driver(model, normal.RULES, report).run() or changed
        if changed:
            _tidy(model, report)
        return changed


def _tidy(model: ir.Model, report: Report) -> None:
    ops.add_functions(model)
    for each in (CommonSubexpressions(), MergeReshapes(), DeadCode(), InferShapes()):
        each.run(model, report)
