"""Our own quantizer: ranges from calibration, grids by the scheme, corrections, Q/DQ in the graph."""

from __future__ import annotations

import onnx_ir as ir

from adcompile.interfaces import CalibrationData
from adcompile.ir.opset import retarget
from adcompile.ir.shapes import infer_shapes
from adcompile.lower.assign import Prepared, assign
from adcompile.lower.equalize import equalize
from adcompile.lower.insert import Assignment, insert, name_nodes
from adcompile.lower.observe import observe
from adcompile.lower.points import plan_points, with_fused
from adcompile.lower.reconstruct import reconstruct
from adcompile.lower.scheme import Scheme
from adcompile.lower.threads import one_blas_thread


def quantize(
    model: ir.Model,
    data: CalibrationData,
    scheme: Scheme,
    floats: frozenset[str] = frozenset(),
) -> ir.Model:
    """A Q/DQ copy of *model* in *scheme*; nodes named in *floats* stay in float.

    Raises InputError when there is no calibration data or it is not finite.
    """
    prepared = prepare(model, data, scheme, floats)
    return finish(prepared, solve(prepared, data, scheme), scheme)


def prepare(
    model: ir.Model, data: CalibrationData, scheme: Scheme, floats: frozenset[str] = frozenset()
) -> Prepared:
    """Copy, name, infer shapes, find the points and observe them.

    Everything that could be a point is observed, whatever stays in float: a value is then seen in the
    same way, to the bit, by every quantization of the model, and one look is enough for many of them.
    """
    copy = model.clone()
    name_nodes(copy)
    infer_shapes(copy)
    floats = with_fused(copy, floats, scheme)
    points = plan_points(copy, scheme, floats)
    looked = dict.fromkeys([*plan_points(copy, scheme).readers, *points.readers])
    with one_blas_thread():
        every = observe(copy, list(looked), data) if points.readers else {}
        seen = {name: every[name] for name in points.readers}
        if scheme.equalize and seen:
            seen = equalize(copy, seen, scheme)
            points = plan_points(copy, scheme, floats)
    return Prepared(copy, points, seen)


def solve(prepared: Prepared, data: CalibrationData, scheme: Scheme) -> Assignment:
    """Choose every grid and every stored integer."""
    with one_blas_thread():
        assignment = assign(prepared, scheme)
        if scheme.refine_rounding:
            assignment = reconstruct(prepared.model, prepared.points, assignment, scheme, data)
    return assignment


def finish(prepared: Prepared, assignment: Assignment, scheme: Scheme) -> ir.Model:
    """Bring the model to the scheme's opset, then insert the Q/DQ nodes, which are of that opset."""
    model = prepared.model.clone()
    retarget(model, scheme.opset, scheme.ir_version)
    insert(model, prepared.points, assignment, scheme)
    return model
