"""Class maps: read, brought to the picture, counted and painted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from adcompile.contract import Preprocess
from adcompile.detection.draw import colour_of
from adcompile.runtime.bundle import load
from adcompile.runtime.deliver import show
from adcompile.runtime.preprocess import place
from adcompile.runtime.segments import NOTHING, labels_of, over_picture, paint, segments


def test_labels_of_scores_and_of_numbers() -> None:
    """The first of equal scores wins, NaN never does; other shapes are no class map."""
    scores = np.zeros((1, 3, 2, 2), np.float32)
    scores[0, 2, 0, 0] = 1.0
    scores[0, 0, 1, 1] = np.nan
    assert np.array_equal(labels_of(scores), [[2, 0], [0, 1]])
    assert np.array_equal(labels_of(np.ones((1, 1, 2, 2), np.uint8)), np.ones((2, 2)))
    for other in (np.zeros((1, 1, 4, 4), np.float32), np.zeros((2, 4, 4), np.int64)):
        assert labels_of(other) is None


def test_letterboxed_map_over_the_picture() -> None:
    """Padding is cut off and pixels are those under the picture's; a crop leaves its outside open."""
    _, where = place(
        np.zeros((10, 40, 3), np.uint8), Preprocess(size=(40, 40), resize="letterbox")
    )
    labels = np.full((20, 20), 7)  # half of the tensor's size
    labels[8:10], labels[10:12] = 1, 2  # rows 16 … 23 of the tensor: the picture is in 15 … 24
    found = over_picture(labels, where)
    assert found.shape == (10, 40)
    assert found[:, 0].tolist() == [7, 1, 1, 1, 1, 2, 2, 2, 2, 7]
    _, where = place(np.zeros((10, 40, 3), np.uint8), Preprocess(size=(10, 10), resize="shorter"))
    found = over_picture(np.full((10, 10), 3), where)
    assert found[0, :15].tolist() == [NOTHING] * 15
    assert (found[:, 15:25] == 3).all()


def test_shares_and_colours() -> None:
    """The largest class first; a background is not painted; pixels without a class do not count."""
    labels = np.zeros((100, 100), np.int64)
    labels[:, 50:] = 1
    labels[90:, :] = NOTHING
    labels[80:90, 50:] = 2
    found = segments(labels, ("background", "road"))
    assert [(s.label, s.name) for s in found] == [(0, "background"), (1, "road"), (2, "")]
    assert found[0].share == 0.5
    grey = np.full((100, 100, 3), 100, np.uint8)
    drawn = paint(grey, labels, found)
    assert drawn[70, 20].tolist() == [100, 100, 100]
    assert drawn[95, 70].tolist() == [100, 100, 100]
    wanted = np.rint(100 + 0.5 * (np.array(colour_of(1), np.float32) - 100))
    assert np.array_equal(drawn[70, 99], wanted)
    assert (drawn[:12, :12] == 255).any(), "the legend"


def test_run_paints_a_segmentation_network(tmp_path: Path) -> None:
    """From scores for every pixel to a picture: bright pixels are class 1, dark ones class 0."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 16])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2, 16, 16])
    weight = np.array([[0, 0, 0], [1, 1, 1]], np.float32).reshape(2, 3, 1, 1)
    constants = [
        onnx.numpy_helper.from_array(weight, "w"),
        onnx.numpy_helper.from_array(np.array([1.5, 0], np.float32), "b"),
    ]
    nodes = [helper.make_node("Conv", ["image", "w", "b"], ["out"])]
    graph = helper.make_graph(nodes, "seg", [image], [out], constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "seg.onnx",
    )
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, 24:] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    options = BuildOptions(golden_count=1, host_code=False, classes=("dark", "bright"))
    result = compile(tmp_path / "seg.onnx", "cpu", tmp_path / "out", options)
    assert result.manifest.contract.roles == {"out": "class_map"}
    found = tmp_path / "found"
    arguments = ["run", str(tmp_path / "out"), "-i", str(tmp_path / "photo.png"), "-o", str(found)]
    assert main(arguments) == 0
    with Image.open(found / "segment_labels.png") as labels:
        assert np.array_equal(np.asarray(labels), np.broadcast_to(np.arange(48) >= 24, (32, 48)))
    with Image.open(found / "segments.png") as drawn:
        assert drawn.size == (48, 32)
        painted = np.asarray(drawn)
    with load(result.path) as bundle:
        feeds, places = bundle.feeds(pixels)
        outputs = bundle.run(feeds).outputs
        summary, streamed = show(result.manifest, outputs, pixels, places["image"])
    assert np.array_equal(streamed, painted)
    assert summary["segments"] == [
        {"label": 0, "class": "dark", "share": 0.5},
        {"label": 1, "class": "bright", "share": 0.5},
    ]
