"""decode-detections: the box arithmetic and the non-maximum suppression that a detector's graph lacks.

Appended as plain operators, so that ONNX Runtime, the generated C++ and every check see a detector
that gives ``boxes`` [N,4] (x1 y1 x2 y2 in pixels of the input), ``scores`` [N] and ``labels`` [N], best
first. The raw outputs are outputs no longer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.contract import Decoder
from adcompile.detection.raw import Raw, raw_outputs
from adcompile.errors import ModelError
from adcompile.interfaces import Pass, Report
from adcompile.ir.constants import add_constant
from adcompile.ir.graph import RULE_KEY, opset
from adcompile.rewrite.surgery import Names

OLDEST_OPSET = 11
RESULTS = ("boxes", "scores", "labels")
_INT = ir.DataType.INT64
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DecodeDetections(Pass):
    """Appends what ``decoder`` (the JSON of a contract's decoder) says; nothing without one.

    Raises ModelError where the raw outputs do not have the shapes that it names.
    """

    name: ClassVar[str] = "decode-detections"
    summary: ClassVar[str] = "a detector's raw output becomes boxes, scores and labels, after NMS"
    decoder: str = ""

    def run(self, model: ir.Model, report: Report) -> bool:
        """Append the decoder; never twice, for a search for the pass at fault runs it again."""
        if not self.decoder or any(
            n.metadata_props.get(RULE_KEY) == self.name for n in model.graph
        ):
            return False
        decoder = Decoder.model_validate_json(self.decoder)
        raw = raw_outputs(model, decoder)
        if opset(model) < OLDEST_OPSET:
            raise ModelError(
                f"a decoder needs opset {OLDEST_OPSET}",
                where=f"the model has opset {opset(model)}",
                fix="export it again with a newer opset, or --decoder none",
            )
        writer = _Writer(model)
        made = writer.final(raw) if decoder.layout == "final" else writer.suppressed(raw)
        writer.hand_out(made, raw)
        names = ", ".join(value.name or "" for value in raw.values)
        report.applied(self.name, names, detail=f"{decoder.preset}: NMS at IoU {decoder.iou:g}")
        return True


class _Writer:
    """Appends nodes behind a model's raw outputs."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.names = Names(model)

    def hand_out(self, made: Sequence[ir.Value], raw: Raw) -> None:
        """Let *made*, boxes, scores and labels, be outputs instead of the raw ones, in their place."""
        place = min(self.graph.outputs.index(value) for value in raw.values)
        for value in raw.values:
            self.graph.outputs.remove(value)
        for value, wish in zip(made, RESULTS, strict=True):
            value.name = self.names.fresh(wish)
        self.graph.outputs[place:place] = list(made)

    def final(self, raw: Raw) -> list[ir.Value]:
        """Rows [1,N,6] of x1 y1 x2 y2 score label: those that score enough."""
        (value,) = raw.values
        rows = self._reshape(self._floats(value), [-1, 6])
        scores = self._reshape(self._columns(rows, 4, 5, axis=1), [-1])
        least = self._const("min_score", np.float32(raw.decoder.min_score))
        # not Less: a score that is no number is below everything
        enough = self._op("Greater", [scores, least], ir.DataType.BOOL)
        kept = self._reshape(self._op("NonZero", [enough], _INT), [-1])
        boxes = self._columns(rows, 0, 4, axis=1)
        labels = self._op(
            "Cast", [self._reshape(self._columns(rows, 5, 6, axis=1), [-1])], _INT, {"to": 7}
        )
        corners = self._in_pixels(boxes, raw)
        return self._best(
            self._gather(corners, kept),
            self._gather(scores, kept),
            self._gather(labels, kept),
            raw,
        )

    def suppressed(self, raw: Raw) -> list[ir.Value]:
        """Places [A,V] or [V,A]: boxes of all places, class-wise NMS, the best of what is left."""
        decoder = raw.decoder
        boxes, scores = self._boxes_and_scores(raw)
        corners = self._corners(self._decoded(boxes, raw), raw)
        places = self._reshape(corners, [1, -1, 4])
        kept = self._op(
            "NonMaxSuppression",
            [
                places,
                self._reshape(scores, [1, raw.classes, -1]),
                # no class can have more of the best than there are
                self._const("per_class", np.int64(decoder.max_detections)),
                self._const("iou", np.float32(decoder.iou)),
                self._const("min_score", np.float32(decoder.min_score)),
            ],
            _INT,
        )
        labels = self._reshape(self._columns(kept, 1, 2, axis=1), [-1])
        where = self._reshape(self._columns(kept, 2, 3, axis=1), [-1])
        found = self._op("GatherND", [scores, self._columns(kept, 1, 3, axis=1)])
        return self._best(self._gather(corners, where), found, labels, raw)

    def _boxes_and_scores(self, raw: Raw) -> tuple[ir.Value, ir.Value]:
        """Boxes [A,4] as the graph has them, and scores [C,A]."""
        decoder = raw.decoder
        end = 5 if decoder.objectness else 4
        if decoder.layout == "columns":
            table = self._reshape(self._floats(raw.values[0]), [raw.count, -1])
            boxes = self._turned(self._columns(table, 0, 4, axis=0))
            scores = self._columns(table, end, raw.count, axis=0)
            thing = self._columns(table, 4, 5, axis=0) if decoder.objectness else None
        else:
            table = self._rows(raw)
            boxes = self._columns(table, 0, 4, axis=1)
            scores = self._turned(self._columns(table, end, raw.count, axis=1))
            thing = (
                self._turned(self._columns(table, 4, 5, axis=1)) if decoder.objectness else None
            )
        if decoder.activation == "sigmoid":
            scores = self._op("Sigmoid", [scores])
            thing = None if thing is None else self._op("Sigmoid", [thing])
        return boxes, scores if thing is None else self._op("Mul", [scores, thing])

    def _turned(self, table: ir.Value) -> ir.Value:
        return self._op("Transpose", [table], None, {"perm": [1, 0]})

    def _rows(self, raw: Raw) -> ir.Value:
        """The raw outputs as one table [A,V]."""
        if raw.decoder.layout == "rows":
            return self._reshape(self._floats(raw.values[0]), [-1, raw.count])
        tables: list[ir.Value] = []
        for value, cells in zip(raw.values, raw.cells, strict=True):
            data = self._floats(value)
            if value.shape is not None and len(value.shape) == 4:
                split = self._reshape(data, [raw.anchors, raw.count, math.prod(cells)])
                data = self._op("Transpose", [split], None, {"perm": [0, 2, 1]})
            tables.append(self._reshape(data, [-1, raw.count]))
        return self._op("Concat", tables, None, {"axis": 0})

    def _decoded(self, boxes: ir.Value, raw: Raw) -> ir.Value:
        """The box arithmetic that the graph leaves out."""
        if raw.decoder.grid == "none":
            return self._in_pixels(boxes, raw)
        corner, stride, anchor = raw.table()
        if raw.decoder.grid == "yolov5":
            twice = self._op(
                "Mul", [self._op("Sigmoid", [boxes]), self._const("two", np.float32(2))]
            )
            first, second = (self._columns(twice, i, i + 2, axis=1) for i in (0, 2))
            moved = self._op("Add", [first, self._const("cells", corner - np.float32(0.5))])
            sides = self._op("Mul", [second, second])
            size = self._op("Mul", [sides, self._const("anchors", anchor)])
        else:
            first, second = (self._columns(boxes, i, i + 2, axis=1) for i in (0, 2))
            moved = self._op("Add", [first, self._const("cells", corner)])
            size = self._op("Mul", [self._op("Exp", [second]), self._const("strides", stride)])
        centre = self._op("Mul", [moved, self._const("strides", stride)])
        return self._op("Concat", [centre, size], None, {"axis": 1})

    def _in_pixels(self, boxes: ir.Value, raw: Raw) -> ir.Value:
        if raw.decoder.unit == "pixel":
            return boxes
        height, width = raw.size
        sides = np.array([[width, height, width, height]], np.float32)
        return self._op("Mul", [boxes, self._const("sides", sides)])

    def _corners(self, boxes: ir.Value, raw: Raw) -> ir.Value:
        if raw.decoder.boxes == "xyxy":
            return boxes
        centre, size = (self._columns(boxes, i, i + 2, axis=1) for i in (0, 2))
        half = self._op("Mul", [size, self._const("half", np.float32(0.5))])
        low, high = self._op("Sub", [centre, half]), self._op("Add", [centre, half])
        return self._op("Concat", [low, high], None, {"axis": 1})

    def _best(
        self, boxes: ir.Value, scores: ir.Value, labels: ir.Value, raw: Raw
    ) -> list[ir.Value]:
        """At most ``max_detections``, by falling score."""
        count = self._op("Shape", [scores], _INT)
        ordered = self._node("TopK", [scores, count], {"axis": 0}, outputs=2)
        ordered[1].dtype = _INT
        order = self._columns(ordered[1], 0, raw.decoder.max_detections, axis=0)
        made = [self._gather(value, order) for value in (boxes, scores, labels)]
        for value, tail in zip(made, ([4], [], []), strict=True):
            value.shape = ir.Shape(["detections", *tail])
        return made

    def _gather(self, data: ir.Value, index: ir.Value) -> ir.Value:
        return self._op("Gather", [data, index], data.dtype, {"axis": 0})

    def _floats(self, value: ir.Value) -> ir.Value:
        """*value* in float32: half precision has steps of half a pixel from 512 on."""
        if value.dtype == ir.DataType.FLOAT:
            return value
        return self._op("Cast", [value], None, {"to": 1})

    def _columns(self, value: ir.Value, start: int, stop: int, axis: int) -> ir.Value:
        bounds = [self._const(n, np.array([x])) for n, x in (("from", start), ("to", stop))]
        along = self._const("axis", np.array([axis]))
        return self._op("Slice", [value, *bounds, along], value.dtype)

    def _reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        return self._op("Reshape", [value, self._const("shape", np.array(shape))], value.dtype)

    def _const(self, label: str, array: Floats | Ints | np.float32 | np.int64) -> ir.Value:
        name = self.names.fresh(f"decode/{label}")
        return add_constant(self.graph, name, np.asarray(array))

    def _op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        kind: ir.DataType | None = None,
        attributes: Mapping[str, int | Sequence[int]] | None = None,
    ) -> ir.Value:
        (value,) = self._node(op_type, inputs, attributes or {})
        value.dtype = kind or ir.DataType.FLOAT
        return value

    def _node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        attributes: Mapping[str, int | Sequence[int]],
        outputs: int = 1,
    ) -> Sequence[ir.Value]:
        node = ir.node(op_type, inputs, attributes, num_outputs=outputs)
        node.name = self.names.fresh(f"decode/{op_type}")
        node.metadata_props[RULE_KEY] = DecodeDetections.name
        for value in node.outputs:
            value.name = self.names.fresh(f"{node.name}_out")
            value.dtype = ir.DataType.FLOAT
        self.graph.append(node)
        return node.outputs
