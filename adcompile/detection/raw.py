"""The raw outputs of a detector as its decoder names them, checked against their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.contract import Decoder
from adcompile.errors import ModelError

Floats = npt.NDArray[np.float32]
FINAL = 6  # x1 y1 x2 y2 score label
FIX = "--decoder NAME for another (adcompile list decoders), or --decoder none"


@dataclass(frozen=True, slots=True)
class Raw:
    """``values`` are the raw outputs, one for each stride where they are heads, else one.

    ``count`` is V, the numbers of a place: 4 of its box, 1 of the object if the decoder has it, the
    classes. ``size`` is height and width of the input, ``cells`` rows and columns for each stride; zeros
    and none where the graph does not say.
    """

    decoder: Decoder
    values: tuple[ir.Value, ...]
    count: int
    size: tuple[int, int]
    cells: tuple[tuple[int, int], ...]

    @property
    def classes(self) -> int:
        """How many there are."""
        return self.count - 4 - self.decoder.objectness

    @property
    def anchors(self) -> int:
        """How many each cell has; 1 for detectors without."""
        return max(1, len(self.decoder.anchors) // len(self.decoder.strides))

    def table(self) -> tuple[Floats, Floats, Floats]:
        """Of every place, in the order of the raw outputs: its cell (x, y), its stride [A,1], and the
        width and height of its anchor."""
        corners: list[Floats] = []
        strides: list[Floats] = []
        anchors: list[Floats] = []
        each = np.asarray(self.decoder.anchors or [(0, 0)] * len(self.cells), np.float32)
        by_stride = each.reshape(len(self.cells), self.anchors, 2)
        for (rows, columns), stride, own in zip(
            self.cells, self.decoder.strides, by_stride, strict=True
        ):
            y, x = np.mgrid[0:rows, 0:columns]
            grid = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)
            corners.append(np.tile(grid, (self.anchors, 1)))
            strides.append(np.full((len(grid) * self.anchors, 1), stride, np.float32))
            anchors.append(np.repeat(own, len(grid), axis=0))
        return np.concatenate(corners), np.concatenate(strides), np.concatenate(anchors)


def raw_outputs(model: ir.Model, decoder: Decoder) -> Raw:
    """The raw outputs that *decoder* reads. Raises ModelError when there are none, or several."""
    size = image_size(model)
    cells = grid_cells(size, decoder.strides)
    outputs = _named(model, decoder.outputs) if decoder.outputs else list(model.graph.outputs)
    if decoder.layout == "heads":
        return _heads(decoder, outputs, size, cells)
    fitting = [
        (value, count) for value in outputs if (count := _count(value, decoder, cells)) is not None
    ]
    if len(fitting) != 1:
        raise _unfit(decoder, outputs, f"{len(fitting)} outputs fit")
    ((value, count),) = fitting
    if decoder.grid != "none" and not cells:
        raise _unfit(decoder, outputs, "the size of the image is not known")
    return Raw(decoder, (value,), count, size, cells)


def _named(model: ir.Model, names: Sequence[str]) -> list[ir.Value]:
    table = {value.name: value for value in model.graph.outputs}
    missing = [name for name in names if name not in table]
    if missing:
        raise ModelError(
            f"the decoder reads an output {missing[0]!r} that is not there",
            why="outputs: " + ", ".join(str(name) for name in table),
            fix=FIX,
        )
    return [table[name] for name in names]


def _heads(
    decoder: Decoder,
    outputs: Sequence[ir.Value],
    size: tuple[int, int],
    cells: tuple[tuple[int, int], ...],
) -> Raw:
    """One output per stride, found by its number of cells."""
    anchors = len(decoder.anchors) // len(decoder.strides)
    by_cells: dict[tuple[int, int], tuple[ir.Value, int]] = {}
    for value in outputs:
        dims = known(value)
        if dims is None or dims[0] != 1 or not is_float(value):
            continue
        if len(dims) == 4 and dims[1] % anchors == 0:
            by_cells[dims[2], dims[3]] = (value, dims[1] // anchors)
        elif len(dims) == 5 and dims[1] == anchors:
            by_cells[dims[2], dims[3]] = (value, dims[4])
    found = [by_cells[place] for place in cells if place in by_cells]
    counts = {count for _, count in found}
    if len(found) != len(decoder.strides) or len(counts) != 1 or min(counts) <= 5:
        raise _unfit(decoder, outputs, "there is not one such output for each stride")
    return Raw(decoder, tuple(value for value, _ in found), counts.pop(), size, cells)


def _count(value: ir.Value, decoder: Decoder, cells: tuple[tuple[int, int], ...]) -> int | None:
    """V of an output in the decoder's layout; None for an output that it cannot read."""
    shape = value.shape
    if shape is None or len(shape) != 3 or not is_float(value):
        return None
    batch, second, third = shape.dims
    if isinstance(batch, int) and batch != 1:
        return None
    if decoder.layout == "final":
        return FINAL if third == FINAL else None
    count, places = (second, third) if decoder.layout == "columns" else (third, second)
    if not isinstance(count, int) or count <= 4 + decoder.objectness:
        return None
    if decoder.grid != "none" and places != sum(rows * columns for rows, columns in cells):
        return None
    return count


def is_float(value: ir.Value) -> bool:
    """True for the types that raw detections come in."""
    return value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def known(value: ir.Value) -> tuple[int, ...] | None:
    """The shape of *value* with a free batch as 1; None when more is free."""
    if value.shape is None or not len(value.shape):
        return None
    first, *rest = value.shape.dims
    if not all(isinstance(d, int) for d in rest):
        return None
    return (first if isinstance(first, int) else 1, *(d for d in rest if isinstance(d, int)))


def image_size(model: ir.Model) -> tuple[int, int]:
    """Height and width of the only N×C×H×W or N×H×W×C input; zeros when there is none."""
    images = [dims[2:] for dims in _image_like(model) if dims[1] in (1, 3)]
    images = images or [dims[1:3] for dims in _image_like(model) if dims[3] in (1, 3)]
    return (images[0][0], images[0][1]) if len(images) == 1 else (0, 0)


def _image_like(model: ir.Model) -> list[tuple[int, ...]]:
    """Shapes of the inputs that have four dimensions."""
    return [dims for value in model.graph.inputs if (dims := known(value)) and len(dims) == 4]


def grid_cells(size: tuple[int, int], strides: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Rows and columns of cells for each stride; none when the sides are no multiples of them."""
    if not all(size) or any(side % stride for side in size for stride in strides):
        return ()
    return tuple((size[0] // stride, size[1] // stride) for stride in strides)


def _unfit(decoder: Decoder, outputs: Sequence[ir.Value], why: str) -> ModelError:
    shapes = ", ".join(
        f"{value.name} {value.shape if value.shape is not None else '?'}" for value in outputs
    )
    return ModelError(
        f"decoder {decoder.preset!r} does not fit the model's outputs",
        where=shapes,
        why=why,
        fix=FIX,
    )
