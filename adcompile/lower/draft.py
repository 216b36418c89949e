"""A quantization made once, out of which any nodes can be taken: for the sensitivity of every node.

Calibration, equalisation and grids are those of the whole model, so a variant with some nodes in float
costs no more than writing Q/DQ nodes. Weights are not fitted to the errors of earlier layers here:
that would hide which node causes them.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from adcompile.interfaces import CalibrationData
from adcompile.lower.assign import Prepared
from adcompile.lower.insert import Assignment
from adcompile.lower.points import Points, fused_chains, plan_points
from adcompile.lower.quantize import finish, prepare, solve
from adcompile.lower.scheme import Scheme


class Draft:
    """Call it with the names of the nodes to leave in float; the result is a Q/DQ model."""

    def __init__(self, model: ir.Model, data: CalibrationData, scheme: Scheme) -> None:
        """Quantize everything. Raises InputError for unusable calibration data."""
        self._scheme = replace(scheme, refine_rounding=False)
        self._prepared = prepare(model, data, self._scheme)
        self._assignment = solve(self._prepared, data, self._scheme)

    def __call__(self, floats: frozenset[str]) -> ir.Model:
        """A variant. Nodes that run in one kernel stay together: the first of them decides."""
        whole = self._prepared
        kept = set(floats)
        for chain in fused_chains(whole.model, self._scheme):
            names = {n.name or "" for n in chain}
            kept = kept | names if (chain[0].name or "") in floats else kept - names
        points = plan_points(whole.model, self._scheme, frozenset(kept))
        assignment = _restricted(self._assignment, points, frozenset(kept))
        return finish(Prepared(whole.model, points, whole.seen), assignment, self._scheme)


def _restricted(whole: Assignment, points: Points, floats: frozenset[str]) -> Assignment:
    constants = {(c.node, c.index) for c in points.constants}
    return Assignment(
        {name: whole.activations[name] for name in points.readers},
        {place: stored for place, stored in whole.constants.items() if place in constants},
        {place: bias for place, bias in whole.replaced.items() if place[0] not in floats},
    )
