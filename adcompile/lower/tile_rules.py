"""How each operator of a region head changes when rows become tiles of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from adcompile.ir.graph import constant, is_constant
from adcompile.lower.points import attribute
from adcompile.lower.scheme import words
from adcompile.lower.tiling import Builder, GutterTooNarrow, Rule, Tiles, refuse

_ELEMENTWISE = words(
    """Relu LeakyRelu Clip Sigmoid HardSigmoid HardSwish Tanh Elu Selu Softplus Gelu Abs Neg Sqrt Exp
    Identity Dropout Mish Erf"""
)
_KEEPS_ZERO = words(
    "Relu LeakyRelu Tanh Elu Selu Gelu Abs Neg Sqrt Identity Dropout Erf HardSwish Mish"
)
_TWO_SIDED = words("Add Sub Mul Div Max Min")


def _elementwise(build: Builder, node: ir.Node) -> None:
    tiles = build.tiles_of(node)
    keeps = node.op_type in _KEEPS_ZERO
    if node.op_type == "Clip":
        ends = [constant(v) for v in node.inputs[1:]]
        low = ends[0] if ends else None
        high = ends[1] if len(ends) > 1 else None
        keeps = (low is None or float(low) <= 0) and (high is None or float(high) >= 0)
    build.tiles[node.outputs[0]] = replace(tiles, clean=tiles.clean and keeps)


def _two_sided(build: Builder, node: ir.Node) -> None:
    sides = [v for v in node.inputs if v is not None and not is_constant(v)]
    tiles = [build.tiles[v] for v in sides if v in build.tiles]
    if len(tiles) != len(sides) or not tiles:
        raise refuse(node, "an input is not a row of the mosaic")
    if len({replace(t, clean=True) for t in tiles}) > 1:
        raise refuse(node, "its inputs lie differently")
    if len(sides) == 2:
        clean = all(t.clean for t in tiles) and node.op_type != "Div"
        build.tiles[node.outputs[0]] = replace(tiles[0], clean=clean)
        return
    index = 0 if is_constant(node.inputs[0]) else 1
    array = build.constant_of(node, index)
    if tiles[0].pending:
        raise refuse(node, "rows were flattened before it")
    if tiles[0].flat and array.size > 1:
        array = array.reshape(1, -1, 1, 1)
        node.replace_input_with(index, build.constant(f"{node.name}_operand", array))
    elif array.size > 1 and (array.ndim < 3 or array.shape[-2:] != (1, 1)):
        raise refuse(node, "a constant differs within the tile")
    build.tiles[node.outputs[0]] = replace(
        tiles[0], clean=tiles[0].clean and node.op_type == "Mul"
    )


def _ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    found = attribute(node, name, default)
    return tuple(int(x) for x in found) if isinstance(found, (list, tuple)) else default  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _conv(build: Builder, node: ir.Node) -> None:
    tiles = build.spatial(node)
    weight = build.constant_of(node, 1)
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        raise refuse(node, "auto_pad")
    pads = _ints(node, "pads", (0, 0, 0, 0))
    strides, dilations = _ints(node, "strides", (1, 1)), _ints(node, "dilations", (1, 1))
    reach = [d * (k - 1) for k, d in zip(weight.shape[2:], dilations, strict=True)]
    gutters = (tiles.pitch_y - tiles.height, tiles.pitch_x - tiles.width)
    for axis in (0, 1):
        if max(pads[axis], pads[axis + 2]) > gutters[axis]:
            raise GutterTooNarrow
    if max(pads) > 0:
        build.clean_input(node)
    after = _windowed(tiles, reach, pads, strides, node)
    # a full image of output: what the right and bottom edge lacks is padded
    new_pads = [
        pads[0],
        pads[1],
        max(reach[0] - pads[0] - (strides[0] - 1), 0),
        max(reach[1] - pads[1] - (strides[1] - 1), 0),
    ]
    node.attributes["pads"] = ir.AttrInt64s("pads", new_pads)
    build.tiles[node.outputs[0]] = after


def _windowed(
    tiles: Tiles,
    reach: list[int],
    pads: tuple[int, ...],
    strides: tuple[int, ...],
    node: ir.Node,
) -> Tiles:
    """The layout behind a sliding window."""
    if tiles.pitch_y % strides[0] or tiles.pitch_x % strides[1]:
        raise GutterTooNarrow
    height = (tiles.height + pads[0] + pads[2] - reach[0] - 1) // strides[0] + 1
    width = (tiles.width + pads[1] + pads[3] - reach[1] - 1) // strides[1] + 1
    pitch_y, pitch_x = tiles.pitch_y // strides[0], tiles.pitch_x // strides[1]
    if height < 1 or width < 1:
        raise refuse(node, "its window is larger than a tile")
    if height > pitch_y or width > pitch_x:
        raise GutterTooNarrow
    return Tiles(height, width, pitch_y, pitch_x, clean=False)


def _pool(build: Builder, node: ir.Node) -> None:
    tiles = build.spatial(node)
    pads = _ints(node, "pads", (0, 0, 0, 0))
    dilations = _ints(node, "dilations", (1, 1))
    if any(pads) or any(d != 1 for d in dilations) or attribute(node, "ceil_mode", 0):
        raise refuse(node, "a pool with padding, dilation or ceil_mode")
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET" or len(node.outputs) > 1:
        raise refuse(node, "auto_pad or indices")
    kernel, strides = _ints(node, "kernel_shape", (1, 1)), _ints(node, "strides", (1, 1))
    after = _windowed(tiles, [k - 1 for k in kernel], pads, strides, node)
    end = [max(k - s, 0) for k, s in zip(kernel, strides, strict=True)]
    if any(end):
        # whole tiles are in the image; the padded windows lie in gutters and are not read
        node.attributes["pads"] = ir.AttrInt64s("pads", [0, 0, *end])
    build.tiles[node.outputs[0]] = after


def _global_pool(build: Builder, node: ir.Node) -> None:
    tiles = build.spatial(node)
    kind = "AveragePool" if node.op_type == "GlobalAveragePool" else "MaxPool"
    new = ir.Node(
        "",
        kind,
        [node.inputs[0]],
        [
            ir.AttrInt64s("kernel_shape", [tiles.height, tiles.width]),
            ir.AttrInt64s("strides", [tiles.pitch_y, tiles.pitch_x]),
        ],
    )
    build.replace(node, new, Tiles(1, 1, 1, 1, clean=True))


def _deconv(build: Builder, node: ir.Node) -> None:
    tiles = build.spatial(node)
    kernel = build.constant_of(node, 1).shape[2:]
    strides = _ints(node, "strides", (1, 1))
    plain = (
        tuple(kernel) == strides
        and not any(_ints(node, "pads", (0, 0, 0, 0)))
        and not any(_ints(node, "output_padding", (0, 0)))
        and "output_shape" not in node.attributes
    )
    if not plain:
        raise refuse(node, "a deconvolution whose windows overlap")
    build.tiles[node.outputs[0]] = Tiles(
        tiles.height * strides[0],
        tiles.width * strides[1],
        tiles.pitch_y * strides[0],
        tiles.pitch_x * strides[1],
        clean=False,
    )


def _flatten(build: Builder, node: ir.Node) -> None:
    tiles = build.tiles_of(node)
    if node.op_type == "Flatten" and attribute(node, "axis", 1) != 1:
        raise refuse(node, "it does not keep the rows")
    if node.op_type == "Reshape":
        target = [int(x) for x in build.constant_of(node, 1).reshape(-1)]
        if len(target) != 2 or target[0] not in (-1, 0):
            raise refuse(node, f"it reshapes rows to {target}")
    build.forward(node, replace(tiles, pending=not tiles.flat))


def _product(build: Builder, node: ir.Node) -> None:
    """A fully connected layer: a convolution over one tile."""
    tiles = build.tiles_of(node)
    if not tiles.pending and not tiles.flat:
        raise refuse(node, "its input still has height and width")
    weight = build.constant_of(node, 1)
    if node.op_type == "Gemm":
        scaled = attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0
        if scaled or attribute(node, "transA", 0):
            raise refuse(node, "a Gemm with alpha, beta or transA")
        weight = weight if attribute(node, "transB", 0) else weight.T
    else:
        weight = weight.T
    high, wide = (tiles.height, tiles.width) if tiles.pending else (1, 1)
    outputs, columns = weight.shape
    if columns % (high * wide):
        raise refuse(node, "its weight does not match the tile")
    kernel = weight.reshape(outputs, columns // (high * wide), high, wide)
    inputs: list[ir.Value | None] = [
        node.inputs[0],
        build.constant(f"{node.name}_window", kernel),
    ]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = build.constant_of(node, 2)
        row = np.broadcast_to(bias.reshape(-1), (outputs,)) if bias.size in (1, outputs) else None
        if row is None:
            raise refuse(node, "its bias differs between rows")
        inputs.append(build.constant(f"{node.name}_bias", np.ascontiguousarray(row)))
    strides = [tiles.pitch_y, tiles.pitch_x] if tiles.pending else [1, 1]
    new = ir.Node(
        "",
        "Conv",
        inputs,
        [
            ir.AttrInt64s("kernel_shape", [high, wide]),
            ir.AttrInt64s("strides", strides),
            ir.AttrInt64s("pads", [0, 0, 0, 0]),
            ir.AttrInt64s("dilations", [1, 1]),
            ir.AttrInt64("group", 1),
        ],
    )
    build.replace(node, new, Tiles(1, 1, 1, 1, clean=True, flat=True))


def _softmax(build: Builder, node: ir.Node) -> None:
    tiles = build.tiles_of(node)
    if not tiles.flat or attribute(node, "axis", -1) not in (1, -1):
        raise refuse(node, "it is not over the classes of a row")
    node.attributes["axis"] = ir.AttrInt64("axis", 1)
    build.tiles[node.outputs[0]] = replace(tiles, clean=False)


def _batch_norm(build: Builder, node: ir.Node) -> None:
    build.tiles[node.outputs[0]] = replace(build.spatial(node), clean=False)


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_TWO_SIDED, _two_sided),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    **dict.fromkeys(("Flatten", "Reshape"), _flatten),
    **dict.fromkeys(("Gemm", "MatMul"), _product),
    "Conv": _conv,
    "ConvTranspose": _deconv,
    "Softmax": _softmax,
    "BatchNormalization": _batch_norm,
}
