"""Small models and covariances for the tests of PaDiM's distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.anomaly import ops

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def covariances(patches: int, channels: int, spread: float, seed: int = 0) -> Doubles:
    """Symmetric positive matrices [P, C, C] with eigenvalues from 1/spread to 1."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((patches, channels, channels)))
    values = spread ** -rng.random((patches, channels))
    return np.asarray((basis * values[:, None]) @ basis.transpose(0, 2, 1), np.float64)


def distance_model(
    op_type: str, shape: tuple[int, ...], mean: Array, matrix: Array, *, opset: int = 17
) -> ir.Model:
    """One distance op with constant statistics: ``e`` to ``s``."""
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "adcompile" : 1]>'
    dims = ",".join(map(str, shape))
    out = f"{shape[0]},1,{shape[2]},{shape[3]}"
    text = f"m (float[{dims}] e, float[1] u, float[1] v) => (float[{out}] s)"
    model = ir.from_onnx_text(f"{header} {text} {{ s = adcompile.{op_type} (e, u, v) }}")
    for value, array in zip(list(model.graph.inputs)[1:], (mean, matrix), strict=True):
        model.graph.inputs.remove(value)
        value.shape, value.const_value = ir.Shape(array.shape), ir.tensor(array, name=value.name)
        model.graph.register_initializer(value)
    ops.add_functions(model)
    return model
