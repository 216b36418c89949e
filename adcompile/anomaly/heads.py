"""Puts an anomaly head on a feature network: one ONNX graph from image to score and map.

Outputs of every graph made here: ``score`` [N] (on the contract's scale: normalised when the
contract normalises, and nowhere else), ``raw_score`` [N], ``anomaly_map`` [N, 1, H, W] (raw).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from adcompile.anomaly import ops
from adcompile.anomaly.backbone import Backbone
from adcompile.anomaly.maps import Array, Upsampling, upsample_blur_matrices
from adcompile.contract import CONTRACT_KEY, Contract, Preprocess, Score
from adcompile.ir import graph
from adcompile.ir.constants import add_constant
from adcompile.ir.opset import retarget

ROLES: Mapping[str, str] = {"score": "score", "raw_score": "raw_score", "anomaly_map": "map"}
OPSET = 17


class GraphWriter:
    """Appends named nodes and constants to a model's graph."""

    def __init__(self, model: ir.Model, prefix: str = "head") -> None:
        self.model = model
        self.prefix = prefix
        self.count = 0

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, object] | None = None,
        *,
        domain: str = "",
        name: str = "",
        outputs: int = 1,
    ) -> list[ir.Value]:
        """Add a node; its outputs carry its name."""
        label = name or f"{self.prefix}/{op_type.lower()}_{self.count}"
        self.count += 1
        node = ir.node(
            op_type,
            list(inputs),
            attributes=dict(attributes or {}),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            domain=domain,
            num_outputs=outputs,
            name=label,
        )
        for index, value in enumerate(node.outputs):
            value.name = label if index == 0 else f"{label}_{index}"
            value.dtype = ir.DataType.FLOAT
        self.model.graph.append(node)
        return list(node.outputs)

    def one(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, object] | None = None,
        *,
        domain: str = "",
        name: str = "",
    ) -> ir.Value:
        """Add a node with one output."""
        return self.op(op_type, inputs, attributes, domain=domain, name=name)[0]

    def constant(
        self, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
    ) -> ir.Value:
        """Add an initializer."""
        return add_constant(self.model.graph, name, array)

    def integers(self, name: str, values: Sequence[int]) -> ir.Value:
        """Add a one-dimensional int64 initializer."""
        return self.constant(f"{self.prefix}/{name}", np.array(values, dtype=np.int64))

    def rename(self, value: ir.Value, name: str) -> ir.Value:
        """The same value under another name (the name of a graph output)."""
        value.name = name
        return value


def begin(backbone: Backbone) -> tuple[GraphWriter, list[ir.Value]]:
    """A copy of the backbone to append to, and its feature maps; outputs are cleared."""
    model = backbone.model.clone()
    if not 13 <= graph.opset(model) <= 21:
        retarget(model, OPSET, max(model.ir_version, 8))
    layers = list(model.graph.outputs)
    model.graph.outputs.clear()
    return GraphWriter(model), layers


def add_embedding(
    writer: GraphWriter,
    layers: Sequence[ir.Value],
    grids: Sequence[tuple[int, int]],
    upsampling: Upsampling,
    *,
    pool: bool,
) -> ir.Value:
    """Pool, enlarge and concatenate feature maps: [N, C, h, w], named ``embedding``."""
    first = grids[0]
    parts: list[ir.Value] = []
    for index, (layer, grid) in enumerate(zip(layers, grids, strict=True)):
        value = layer
        if pool:
            attributes = {
                "kernel_shape": [3, 3],
                "strides": [1, 1],
                "pads": [1, 1, 1, 1],
                "count_include_pad": 1,
            }
            value = writer.one("AveragePool", [value], attributes)
        if grid != first:
            value = _enlarge(writer, value, grid, first, upsampling, index)
        parts.append(value)
    if len(parts) == 1:
        return writer.one("Identity", parts, name="embedding")
    return writer.one("Concat", parts, {"axis": 1}, name="embedding")


def _enlarge(
    writer: GraphWriter,
    value: ir.Value,
    grid: tuple[int, int],
    first: tuple[int, int],
    upsampling: Upsampling,
    index: int,
) -> ir.Value:
    scales = np.array([1.0, 1.0, first[0] / grid[0], first[1] / grid[1]], dtype=np.float32)
    attributes: dict[str, object] = {
        "mode": "linear",
        "coordinate_transformation_mode": "half_pixel",
    }
    if upsampling == "nearest":
        attributes = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
    factors = writer.constant(f"{writer.prefix}/scales_{index}", scales)
    return writer.one("Resize", [value, None, factors], attributes)


def add_patch_rows(writer: GraphWriter, embedding: ir.Value, channels: int) -> ir.Value:
    """[N, C, h, w] to rows [N·h·w, C], named ``features``."""
    moved = writer.one("Transpose", [embedding], {"perm": [0, 2, 3, 1]})
    shape = writer.integers("rows_shape", [-1, channels])
    return writer.one("Reshape", [moved, shape], name="features")


_SCORERS = {"none": "PatchScore", "own_neighbours": "PatchScoreOwn", "paper": "PatchScorePaper"}


def add_patchcore(
    writer: GraphWriter, rows: ir.Value, bank: Array, grid: tuple[int, int], score: Score
) -> tuple[ir.Value, ir.Value]:
    """Search and score; returns raw score [N] and patch map [N, 1, h, w]."""
    constant = writer.constant("memory_bank", bank)
    weighting = "none" if score.weighting == "paper" and score.k == 1 else score.weighting
    k = score.k if weighting == "own_neighbours" else 1
    distances, indices = writer.op(
        "KnnSearch", [rows, constant], {"k": k}, domain=ops.DOMAIN, outputs=2
    )
    indices.dtype = ir.DataType.INT64
    if score.metric == "l2":
        distances = writer.one("Sqrt", [distances])
    attributes: dict[str, object] = {"grid": list(grid)}
    inputs = [distances]
    if weighting == "paper":
        attributes["k"] = min(score.k, bank.shape[0])
        inputs = [distances, indices, rows, constant]
    found = writer.op(_SCORERS[weighting], inputs, attributes, domain=ops.DOMAIN, outputs=2)
    return found[0], found[1]


def add_map(
    writer: GraphWriter,
    patch_map: ir.Value,
    grid: tuple[int, int],
    size: tuple[int, int],
    score: Score,
    *,
    pad: int = 0,
) -> ir.Value:
    """Enlarge and blur a patch map as the contract says; [N, 1, H, W]."""
    if score.map_upsampling == "none":
        return patch_map
    rows, columns = upsample_blur_matrices(
        grid,
        score.map_size or size,
        score.map_upsampling,
        score.blur_sigma,
        border=score.blur_border,
        pad=pad,
    )
    names = [
        f"{writer.prefix}/map_rows_{writer.count}",
        f"{writer.prefix}/map_columns_{writer.count}",
    ]
    inputs = [patch_map, writer.constant(names[0], rows), writer.constant(names[1], columns)]
    return writer.one("MapUpsampleBlur", inputs, domain=ops.DOMAIN)


def add_maximum(writer: GraphWriter, value: ir.Value) -> ir.Value:
    """The largest value per image: [N, …] to [N]. Written without axes, so that it suits every opset."""
    flat = writer.one("Flatten", [value], {"axis": 1})
    top = writer.op("TopK", [flat, writer.integers("one", [1])], {"axis": -1}, outputs=2)
    top[1].dtype = ir.DataType.INT64
    return writer.one("Reshape", [top[0], writer.integers("flat", [-1])])


def finish(
    writer: GraphWriter,
    raw_score: ir.Value,
    anomaly_map: ir.Value,
    score: Score,
    spec: Preprocess,
) -> ir.Model:
    """Normalise once, name the outputs, add functions and contract; returns the model."""
    final = add_normalised(writer, raw_score, score)
    shape = writer.model.graph.inputs[0].shape
    batch = shape[0] if shape is not None else None
    for value, name, dims in (
        (final, "score", [batch]),
        (raw_score, "raw_score", [batch]),
        (anomaly_map, "anomaly_map", [batch, 1, *_map_size(score, spec, anomaly_map)]),
    ):
        writer.rename(value, name)
        value.shape = ir.Shape(dims)
        value.dtype = ir.DataType.FLOAT
        writer.model.graph.outputs.append(value)
    ops.add_functions(writer.model)
    contract = Contract(
        inputs={writer.model.graph.inputs[0].name or "input": spec}, roles=dict(ROLES), score=score
    )
    writer.model.metadata_props[CONTRACT_KEY] = contract.dump()
    return writer.model


def _map_size(score: Score, spec: Preprocess, anomaly_map: ir.Value) -> list[int | None]:
    if score.map_upsampling != "none":
        return list(score.map_size or spec.size)
    known = graph.static_shape(anomaly_map)
    return [None, None] if known is None else [known[2], known[3]]


def add_normalised(writer: GraphWriter, raw: ir.Value, score: Score) -> ir.Value:
    """The score on the contract's scale; the raw one through Identity when it has no other."""
    if score.normalisation == "none" or score.threshold is None:
        return writer.one("Identity", [raw])
    if score.normalisation == "cdf":
        attributes = {"threshold": score.threshold, "std": score.std or 1.0}
        return writer.one("NormalizeScoreCdf", [raw], attributes, domain=ops.DOMAIN)
    attributes = {
        "threshold": score.threshold,
        "minimum": score.minimum or 0.0,
        "maximum": score.maximum or 1.0,
    }
    return writer.one("NormalizeScore", [raw], attributes, domain=ops.DOMAIN)
