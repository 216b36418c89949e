"""A feature network that needs no training and no download: Gabor filters, written as ONNX.

Two outputs on a grid of 8×8 cells: ``cells`` [N, 30, S/8, S/8] (energy of four wavelengths in six
orientations, mean colour, colour activity) and ``contrast`` (the same minus its 5×5 surround).
Only Conv, Relu, AveragePool, Concat and Sub: every target runs it. Textures are described well;
with whitening (see ``adapt``) it is a sound default where no pretrained weights can be had.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.anomaly.heads import OPSET, GraphWriter
from adcompile.contract import IMAGENET_MEAN, IMAGENET_STD
from adcompile.errors import UsageError

CELL = 8
WAVELENGTHS = (3.5, 6.0, 11.0, 20.0)
ORIENTATIONS = 6
LAYERS = ("cells", "contrast")

# luminance, red-green, blue-yellow
_OPPONENT = np.array([[1 / 3, 1 / 3, 1 / 3], [0.5, -0.5, 0.0], [0.25, 0.25, -0.5]])
# typical spread of each kind of channel on textured images, so that all weigh alike
_ENERGY = (0.0060, 0.0088, 0.0140, 0.0170)
_COLOUR = (0.055, 0.004, 0.005)
_ACTIVITY = (0.0095, 0.0010, 0.0010)


def gabor(wavelength: float) -> npt.NDArray[np.float64]:
    """Filters [2·orientations, K, K]: cosine and sine of each orientation, zero mean, unit L1."""
    sigma = 0.56 * wavelength
    radius = int(np.ceil(2.0 * sigma))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    filters: list[npt.NDArray[np.float64]] = []
    for step in range(ORIENTATIONS):
        angle = np.pi * step / ORIENTATIONS
        along = x * np.cos(angle) + y * np.sin(angle)
        window = np.exp(-(x**2 + y**2) / (2.0 * sigma**2))
        for phase in (0.0, np.pi / 2.0):
            wave = window * np.cos(2.0 * np.pi * along / wavelength + phase)
            wave -= window * wave.sum() / window.sum()
            filters.append(wave / np.abs(wave).sum())
    return np.asarray(filters)


def filter_network(side: int) -> ir.Model:
    """The network for images [N, 3, side, side], normalised with ImageNet's mean and deviation."""
    if side < 64 or side % CELL:
        raise UsageError(
            "the filter network needs an image side of at least 64 and a multiple of 8",
            why=f"got {side}",
        )
    image = ir.Value(name="image", shape=ir.Shape(["N", 3, side, side]))
    image.dtype = ir.DataType.FLOAT
    body = ir.Graph([image], [], nodes=[], opset_imports={"": OPSET}, name="filters")
    writer = GraphWriter(ir.Model(body, ir_version=8), "filters")
    opponent = _opponent(writer, image)
    parts = [_energy(writer, opponent, index) for index in range(len(WAVELENGTHS))]
    parts += [_colour(writer, opponent), _activity(writer, opponent)]
    cells = writer.one("Concat", parts, {"axis": 1}, name="cells")
    pool = {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2], "count_include_pad": 0}
    surround = writer.one("AveragePool", [cells], pool)
    contrast = writer.one("Sub", [cells, surround], name="contrast")
    grid = side // CELL
    for value in (cells, contrast):
        value.shape = ir.Shape(["N", len(WAVELENGTHS) * ORIENTATIONS + 6, grid, grid])
        body.outputs.append(value)
    return writer.model


def _conv(
    writer: GraphWriter,
    value: ir.Value,
    weight: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64] | None = None,
    *,
    stride: int = 1,
    group: int = 1,
) -> ir.Value:
    name = f"filters/weight_{writer.count}"
    inputs: list[ir.Value | None] = [value, writer.constant(name, weight.astype(np.float32))]
    if bias is not None:
        inputs.append(writer.constant(f"filters/bias_{writer.count}", bias.astype(np.float32)))
    pad = weight.shape[-1] // 2
    attributes = {
        "kernel_shape": list(weight.shape[-2:]),
        "pads": [pad] * 4,
        "strides": [stride, stride],
        "group": group,
    }
    return writer.one("Conv", inputs, attributes)


def _opponent(writer: GraphWriter, image: ir.Value) -> ir.Value:
    """Opponent colours in 0…1 units: undoes the normalisation in the same 1×1 convolution."""
    weight = (_OPPONENT * np.asarray(IMAGENET_STD))[:, :, None, None]
    return _conv(writer, image, weight, _OPPONENT @ np.asarray(IMAGENET_MEAN))


def _box(writer: GraphWriter, value: ir.Value, size: int) -> ir.Value:
    return writer.one("AveragePool", [value], {"kernel_shape": [size] * 2, "strides": [size] * 2})


def _magnitude(
    writer: GraphWriter,
    value: ir.Value,
    weight: npt.NDArray[np.float64],
    sums: npt.NDArray[np.float64],
    *,
    stride: int = 1,
    group: int = 1,
) -> ir.Value:
    """Mean of |filter responses| per cell, combined by *sums*; |x| is relu(x) + relu(-x)."""
    both = np.stack([weight, -weight], axis=1).reshape(-1, *weight.shape[1:])
    response = _conv(writer, value, both, stride=stride, group=group)
    mean = _box(writer, writer.one("Relu", [response]), CELL // stride)
    return _conv(writer, mean, np.repeat(sums, 2, axis=1)[:, :, None, None])


def _energy(writer: GraphWriter, opponent: ir.Value, index: int) -> ir.Value:
    filters = gabor(WAVELENGTHS[index])
    weight = np.zeros((len(filters), 3, *filters.shape[1:]))
    weight[:, 0] = filters
    pairs = np.repeat(np.eye(ORIENTATIONS), 2, axis=1) / (6.0 * _ENERGY[index])
    return _magnitude(
        writer, opponent, weight, np.asarray(pairs, np.float64), stride=1 if index < 2 else 2
    )


def _colour(writer: GraphWriter, opponent: ir.Value) -> ir.Value:
    scale = np.diag(1.0 / np.asarray(_COLOUR))[:, :, None, None]
    return _conv(writer, _box(writer, opponent, CELL), scale)


def _activity(writer: GraphWriter, opponent: ir.Value) -> ir.Value:
    detail = np.full((3, 1, 9, 9), -1.0 / 81.0)
    detail[:, 0, 4, 4] += 1.0
    return _magnitude(writer, opponent, detail, np.diag(1.0 / np.asarray(_ACTIVITY)), group=3)
