"""What decodes a detector's raw output, as generated C++, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from adcompile.backends.host.library import HostLibrary
from adcompile.detection.decoders import parse_decoder
from adcompile.interfaces import Report
from adcompile.ir.evaluate import evaluate
from adcompile.ir.model_io import from_bytes
from adcompile.ir.shapes import infer_shapes
from adcompile.passes.decode_detections import DecodeDetections
from tests.detection.yolo import CELLS, SIDE, raw_model
from tests.host.support import CHECKED, Array, assert_like_reference, build

# text of the decoder, shapes of the raw outputs, how large boxes are in them
CASES = {
    "yolov8{min-score=0.5}": ([[1, 7, CELLS]], 30.0),
    "yolov5": ([[1, 40, 8]], 30.0),
    "yolov5-heads": ([[1, 24, 8, 8], [1, 3, 4, 4, 8], [1, 24, 2, 2]], 1.0),
    "yolox": ([[1, CELLS, 8]], 1.0),
    "yolov10": ([[1, 50, 6]], 30.0),
}


def test_the_same_boxes_as_onnx_runtime(tmp_path: Path) -> None:
    """Every layout, with detections and without: order and labels equal, boxes to the last bits."""
    rng = np.random.default_rng(0)
    models, feeds = [], []
    for text, (shapes, size) in CASES.items():
        made = from_bytes(raw_model(*shapes).SerializeToString())
        DecodeDetections(parse_decoder(text).model_dump_json()).run(made, Report())
        infer_shapes(made)
        arrays: dict[str, Array] = {"images": np.zeros((1, 3, SIDE, SIDE), np.float32)}
        for at, shape in enumerate(shapes):
            raw = rng.uniform(0, 1, shape).astype(np.float32)
            axis = 1 if text.startswith("yolov8") else -1
            np.moveaxis(raw, axis, 0)[:4] *= np.float32(size)
            arrays[f"x{at}"] = raw
        models.append((f"m{len(models)}", made))
        feeds.append(arrays)
    library = build(models, tmp_path / "cxx", CHECKED)
    for (name, made), arrays in zip(models, feeds, strict=True):
        _compare(library, name, made, arrays)
        low = np.float32(-9 if len(arrays) > 2 else 0)  # heads are still to be squashed
        _compare(
            library, name, made, {n: np.full_like(a, low) for n, a in arrays.items()}, none=True
        )


def _compare(
    library: HostLibrary, name: str, made: ir.Model, feeds: dict[str, Array], *, none: bool = False
) -> None:
    assert_like_reference(library, name, made, feeds)
    count = len(evaluate(made, feeds)["scores"])
    assert (count == 0) == none, f"{name}: {count} detections prove nothing"
