"""A quantization made once, out of which any nodes can be taken: for the sensitivity of every node.

Calibration and equalisation are those of the whole model, and a grid is searched for once, so a variant
with some nodes in float costs no more than writing Q/DQ nodes. Weights are not fitted to the errors of
earlier layers here: that would hide which node causes them.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from adcompile.interfaces import CalibrationData, Trial
from adcompile.lower.assign import GridMemo, Prepared, assign
from adcompile.lower.choices import choices, kernels
from adcompile.lower.points import fused_chains, plan_points
from adcompile.lower.quantize import finish, prepare
from adcompile.lower.scheme import Scheme


class Draft:
    """Call it with the names of the nodes to leave in float; the result is a Q/DQ model.

    ``nodes`` and ``sets`` are what there is to choose: see :mod:`adcompile.lower.choices`.
    """

    def __init__(self, model: ir.Model, data: CalibrationData, scheme: Scheme) -> None:
        """Look at everything once. Raises InputError for unusable calibration data."""
        self._scheme = replace(scheme, refine_rounding=False)
        self._whole = prepare(model, data, self._scheme)
        self.nodes = tuple(kernels(self._whole.model, self._scheme))
        self.sets = tuple(choices(self._whole.model, self._scheme))
        self._chains = [
            [n.name or "" for n in chain]
            for chain in fused_chains(self._whole.model, self._scheme)
        ]
        self._memo = GridMemo()

    def __call__(self, floats: frozenset[str]) -> ir.Model:
        """A variant. Nodes that run in one kernel stay together: the first of them decides."""
        whole = self._whole
        kept = set(floats)
        for chain in self._chains:
            kept = kept.union(chain) if chain[0] in floats else kept.difference(chain)
        points = plan_points(whole.model, self._scheme, frozenset(kept))
        prepared = Prepared(whole.model, points, whole.seen)
        return finish(prepared, assign(prepared, self._scheme, self._memo), self._scheme)


def draft(
    model: ir.Model, data: CalibrationData | None, scheme: Scheme | None, named: ir.Model
) -> Trial | None:
    """What to try in a part: *model* as *scheme* quantizes it, of which only nodes that *named* (the
    part as the plan knows it) has too can be named. None without data or a scheme."""
    if data is None or scheme is None:
        return None
    known = {n.name or "" for n in named.graph}
    made = Draft(model, data, scheme)
    nodes = tuple(name for name in made.nodes if name in known)
    return Trial(nodes, made, tuple(s for s in made.sets if known.issuperset(s)))
