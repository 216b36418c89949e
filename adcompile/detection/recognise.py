"""Which decoder a model needs, judged by its metadata, the shapes of its outputs, and its last nodes.

Only what cannot be anything else is taken without being asked; what merely looks like a detector is
said, with the names to choose from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from adcompile.contract import Decoder
from adcompile.detection.decoders import PRESETS
from adcompile.detection.exported import Exported
from adcompile.detection.raw import FINAL, grid_cells, image_size, is_float, known
from adcompile.detection.tail import tail_of

MOST_FINAL = 1000  # rows of a finished list of detections
_STRIDES: tuple[tuple[int, ...], ...] = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))
_FIT: Mapping[str, str] = {"segment": "masks", "pose": "key points", "obb": "angles"}
# what moves values or squashes them: a box that went through nothing else is not decoded
_PLAIN = frozenset(
    {
        *("Concat", "Reshape", "Transpose", "Flatten", "Slice", "Split", "Sigmoid", "Identity"),
        *("Unsqueeze", "Squeeze", "Cast"),
    }
)


@dataclass(frozen=True, slots=True)
class Recognised:
    """``decoder`` is None when there is none, or none that is certain; ``why`` is the evidence, or what
    the user may want to know ("" for models that look like no detector)."""

    decoder: Decoder | None = None
    why: str = ""


def recognise(model: ir.Model, exported: Exported | None) -> Recognised:
    """The decoder of *model*; *exported* is what its metadata says, if it does."""
    if exported is not None and exported.task in _FIT:
        what = _FIT[exported.task]
        return Recognised(why=f"metadata says task {exported.task}: no decoder reads its {what}")
    if exported is not None and exported.task == "classify":
        return Recognised()
    outputs = [v for v in model.graph.outputs if is_float(v) and v.shape is not None]
    tables = [v for v in outputs if v.shape is not None and len(v.shape) == 3]
    if exported is not None and exported.task in {"", "detect"}:
        found = [r for v in tables if (r := _by_names(v, exported)).decoder is not None]
        if len(found) == 1:
            return found[0]
    found = [r for v in tables if (r := _by_shape(model, v)).why]
    if len(found) == 1:
        return found[0]
    return _heads(model, outputs) if not found else Recognised()


def _taken(name: str, value: ir.Value, why: str) -> Recognised:
    decoder = PRESETS[name][1].model_copy(update={"outputs": (value.name or "",)})
    return Recognised(decoder, why)


def _by_names(value: ir.Value, exported: Exported) -> Recognised:
    """Metadata with C class names, beside [1, 4+C, A], [1, A, 5+C], [1, N, 4+C] or [1, N, 6]."""
    assert value.shape is not None
    _, second, third = value.shape.dims
    names = len(exported.names)
    what = f"Ultralytics metadata with {names} class names, output {value.name!r} {value.shape}"
    few = isinstance(second, int) and second <= MOST_FINAL
    # with two classes, queries with scores look like finished rows
    if third == FINAL and (exported.finished or (few and (names != 2 or _selects(value)))):
        return _taken("yolov10", value, what)
    if names and second == 4 + names:
        return _taken("yolov8", value, what)
    if names and third == 4 + names and few:
        return _taken("rtdetr", value, what)
    if names and third == 5 + names:
        return _taken("yolov5", value, what)
    return Recognised()


def _by_shape(model: ir.Model, value: ir.Value) -> Recognised:
    """As many places as the image has cells."""
    dims, size = known(value), image_size(model)
    if dims is None or dims[0] != 1:
        return Recognised()
    _, second, third = dims
    if third == FINAL and second <= MOST_FINAL and _selects(value):
        why = f"output {value.name!r} has {second} rows of 6 that TopK chose"
        return _taken("yolov10", value, why)
    for strides in _STRIDES:
        cells = sum(rows * columns for rows, columns in grid_cells(size, strides))
        if not cells:
            continue
        text = f"strides {', '.join(map(str, strides))} of {size[0]}x{size[1]}"
        if third == cells and second > 4:
            why = f"output {value.name!r} has {second} values for each of the {cells} cells of {text}"
            return _taken("yolov8", value, why)
        if second == 3 * cells and third > 5:
            why = f"output {value.name!r} has {third} values for 3 anchors in each cell of {text}"
            return _taken("yolov5", value, why)
        if second == cells and third > 5:
            return _one_row_per_cell(value, strides, text)
    return Recognised()


def _selects(value: ir.Value) -> bool:
    """Whether TopK stands among the last nodes."""
    return any(node.op_type == "TopK" for node in tail_of([value]))


def _one_row_per_cell(value: ir.Value, strides: tuple[int, ...], text: str) -> Recognised:
    """YOLOX, decoded or not, or something else of that shape."""
    ops = {node.op_type for node in tail_of([value])}
    shape = f"output {value.name!r} has one row for each cell of {text}"
    if ops <= _PLAIN and "Sigmoid" in ops:
        found = _taken("yolox", value, f"{shape}, its boxes straight from the last layers")
    elif "Exp" in ops and "Softmax" not in ops:
        found = _taken("yolox-decoded", value, f"{shape}, box sizes by Exp")
    else:
        return Recognised(why=f"{shape}: whether with objectness cannot be seen (--decoder NAME)")
    assert found.decoder is not None
    return Recognised(found.decoder.model_copy(update={"strides": strides}), found.why)


def _heads(model: ir.Model, outputs: list[ir.Value]) -> Recognised:
    """Three raw heads: whose anchors they have cannot be seen."""
    cells = grid_cells(image_size(model), (8, 16, 32))
    shapes = [known(value) or () for value in outputs]
    flat = {s[2:]: s[1] for s in shapes if len(s) == 4 and s[1] % 3 == 0 and s[1] > 15}
    split = {s[2:4]: s[4] for s in shapes if len(s) == 5 and s[1] == 3 and s[4] > 5}
    for table in (flat, split):
        if cells and set(cells) <= set(table) and len({table[c] for c in cells}) == 1:
            return Recognised(
                why="three outputs look like heads with anchors, which the file does not name: "
                "--decoder yolov5-heads, or yolov7-heads (adcompile list decoders)"
            )
    return Recognised()
