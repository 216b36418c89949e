"""Raw detector outputs: which decoder they need, and what it makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper
from PIL import Image

from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from adcompile.contract import Decoder
from adcompile.detection.coco import CocoSet
from adcompile.detection.decoders import parse_decoder
from adcompile.detection.exported import literal, read_exported
from adcompile.detection.recognise import recognise
from adcompile.detection.shapes import CLASSES
from adcompile.errors import ModelError, UsageError
from adcompile.interfaces import Report
from adcompile.ir.model_io import from_bytes, to_bytes
from adcompile.passes.decode_detections import DecodeDetections
from adcompile.runtime.bundle import load
from adcompile.runtime.session import open_session
from tests.detection.yolo import (
    CELLS,
    EXPECTED,
    METADATA,
    SIDE,
    picture,
    raw_model,
    yolov8,
    yolox,
)

Floats = npt.NDArray[np.float32]
Named = dict[str, Floats]


def decode(decoder: Decoder, *arrays: Floats, opset: int = 17) -> Named:
    """What the appended graph makes of raw outputs."""
    model = from_bytes(
        raw_model(*(list(a.shape) for a in arrays), opset=opset).SerializeToString()
    )
    DecodeDetections(decoder.model_dump_json()).run(model, Report())
    image = np.zeros((1, 3, SIDE, SIDE), np.float32)
    feeds = {"images": image} | {f"x{i}": a for i, a in enumerate(arrays)}
    return open_session(to_bytes(model)).run(feeds)


def expected(boxes: Floats, scores: Floats, decoder: Decoder) -> Named:
    """Class-wise greedy suppression of corners [A,4] by scores [A,C], straight from its definition."""
    kept: list[tuple[float, int, int]] = []
    for label in range(scores.shape[1]):
        chosen: list[int] = []
        for place in np.argsort(-scores[:, label], kind="stable"):
            if scores[place, label] <= decoder.min_score:
                break
            if all(overlap(boxes[place], boxes[other]) <= decoder.iou for other in chosen):
                chosen.append(int(place))
                kept.append((float(scores[place, label]), label, int(place)))
    kept.sort(key=lambda item: -item[0])
    kept = kept[: decoder.max_detections]
    return {
        "boxes": np.array([boxes[place] for _, _, place in kept], np.float32).reshape(-1, 4),
        "scores": np.array([score for score, _, _ in kept], np.float32),
        "labels": np.array([label for _, label, _ in kept], np.int64),
    }


def overlap(a: Floats, b: Floats) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inside = float(np.prod(np.maximum(high - low, 0)))
    return inside / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - inside)


def same(found: Named, wanted: Named) -> None:
    assert len(wanted["scores"]) > 3, "the case is too easy"
    np.testing.assert_array_equal(found["labels"], wanted["labels"])
    np.testing.assert_allclose(found["scores"], wanted["scores"], rtol=1e-5)
    np.testing.assert_allclose(found["boxes"], wanted["boxes"], rtol=1e-4, atol=1e-3)


def random_boxes(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Centre and size, crowded so that some overlap; and their corners."""
    centre = rng.uniform(10, 40, (count, 2)).astype(np.float32)
    size = rng.uniform(10, 25, (count, 2)).astype(np.float32)
    return np.hstack([centre, size]), np.hstack([centre - size / 2, centre + size / 2])


def sigmoid(x: Floats) -> Floats:
    return (1 / (1 + np.exp(-x))).astype(np.float32)


@pytest.mark.parametrize("opset", [11, 17])
def test_columns_of_places(opset: int) -> None:
    """Ultralytics v8: [1, 4+C, A], suppressed class by class."""
    rng = np.random.default_rng(1)
    boxes, corners = random_boxes(rng, CELLS)
    scores = rng.uniform(0, 1, (CELLS, 3)).astype(np.float32)
    decoder = parse_decoder("yolov8{min-score=0.4,iou=0.3}")
    raw = np.hstack([boxes, scores]).T[None].astype(np.float32)
    same(decode(decoder, raw, opset=opset), expected(corners, scores, decoder))


def test_objectness_counts() -> None:
    """v5: the score of a class is its own times the object's."""
    rng = np.random.default_rng(2)
    boxes, corners = random_boxes(rng, 60)
    thing, kinds = rng.uniform(0, 1, (60, 1)), rng.uniform(0, 1, (60, 2))
    decoder = parse_decoder("yolov5{min-score=0.3}")
    raw = np.hstack([boxes, thing, kinds])[None].astype(np.float32)
    same(decode(decoder, raw), expected(corners, (thing * kinds).astype(np.float32), decoder))


def cells() -> tuple[Floats, Floats]:
    corner, stride = [], []
    for s in (8, 16, 32):
        y, x = np.mgrid[0 : SIDE // s, 0 : SIDE // s]
        corner.append(np.stack([x, y], -1).reshape(-1, 2))
        stride.append(np.full((len(corner[-1]), 1), s))
    return np.concatenate(corner).astype(np.float32), np.concatenate(stride).astype(np.float32)


def test_boxes_relative_to_cells() -> None:
    """YOLOX exported without decoding: cells and strides are added, sizes are exponents."""
    rng = np.random.default_rng(3)
    corner, stride = cells()
    t = rng.normal(0, 0.7, (CELLS, 4)).astype(np.float32)
    centre, size = (t[:, :2] + corner) * stride, np.exp(t[:, 2:]) * stride
    thing, kinds = rng.uniform(0, 1, (CELLS, 1)), rng.uniform(0, 1, (CELLS, 2))
    decoder = parse_decoder("yolox{min-score=0.2}")
    corners = np.hstack([centre - size / 2, centre + size / 2]).astype(np.float32)
    raw = np.hstack([t, thing, kinds])[None].astype(np.float32)
    same(decode(decoder, raw), expected(corners, (thing * kinds).astype(np.float32), decoder))


@pytest.mark.parametrize("split", [False, True])
def test_heads_with_anchors(split: bool) -> None:
    """v5's three heads as they leave the network, in either shape: sigmoid, cells, anchors."""
    rng = np.random.default_rng(4)
    decoder = parse_decoder("yolov5-heads{min-score=0.3}")
    heads, corners, scores = [], [], []
    for level, stride in enumerate((8, 16, 32)):
        n = SIDE // stride
        raw = rng.normal(0, 2, (1, 3, 7, n, n)).astype(np.float32)
        s = sigmoid(raw[0]).transpose(0, 2, 3, 1)  # anchor, row, column, value
        y, x = np.mgrid[0:n, 0:n]
        anchor = np.array(decoder.anchors[3 * level : 3 * level + 3]).reshape(3, 1, 1, 2)
        centre = (2 * s[..., :2] - 0.5 + np.stack([x, y], -1)) * stride
        size = (2 * s[..., 2:4]) ** 2 * anchor
        corners.append(np.concatenate([centre - size / 2, centre + size / 2], -1).reshape(-1, 4))
        scores.append((s[..., 4:5] * s[..., 5:]).reshape(-1, 2))
        moved = np.ascontiguousarray(raw.transpose(0, 1, 3, 4, 2))
        heads.append(moved if split else raw.reshape(1, 21, n, n))
    heads.reverse()  # found by their sizes, not by their order
    wanted = expected(np.concatenate(corners).astype(np.float32), np.concatenate(scores), decoder)
    same(decode(decoder, *heads), wanted)


def test_finished_rows_are_only_filtered() -> None:
    """v10: boxes that overlap stay, for its training left one per object; order is by score."""
    rows = [
        [1, 2, 11, 12, 0.9, 3],
        [1, 2, 11, 12, 0.8, 3],
        [5, 5, 9, 9, 0.95, 0],
        [0, 0, 1, 1, 0.1, 1],
    ]
    found = decode(parse_decoder("yolov10"), np.array([rows], np.float32))
    assert found["labels"].tolist() == [0, 3, 3]
    np.testing.assert_allclose(found["scores"], [0.95, 0.9, 0.8])
    np.testing.assert_array_equal(found["boxes"][0], [5, 5, 9, 9])


def test_shares_of_the_sides_become_pixels() -> None:
    decoder = parse_decoder("yolov8{unit=side,boxes=xyxy}")
    raw = np.array([[[0.25, 0.5, 0.75, 1.0, 0.9]]], np.float32).transpose(0, 2, 1)
    found = decode(decoder, raw)
    np.testing.assert_allclose(found["boxes"], [[16, 32, 48, 64]])


def test_appended_once() -> None:
    """A pipeline that is run again on its own result changes nothing more."""
    model = from_bytes(raw_model([1, 6, CELLS]).SerializeToString())
    append = DecodeDetections(parse_decoder("yolov8").model_dump_json())
    assert append.run(model, Report())
    count = len(model.graph)
    assert not append.run(model, Report())
    assert len(model.graph) == count


def test_nothing_found_is_no_error() -> None:
    found = decode(parse_decoder("yolov8"), np.zeros((1, 6, CELLS), np.float32))
    assert found["boxes"].shape == (0, 4)
    assert found["scores"].shape == found["labels"].shape == (0,)


def test_at_most_so_many_and_the_best() -> None:
    rng = np.random.default_rng(5)
    boxes, corners = random_boxes(rng, 50)
    scores = rng.uniform(0, 1, (50, 2)).astype(np.float32)
    decoder = parse_decoder("yolov8{min-score=0.1,iou=0.9,max-detections=5}")
    raw = np.hstack([boxes, scores]).T[None].astype(np.float32)
    same(decode(decoder, raw), expected(corners, scores, decoder))


def test_one_class_may_have_all_of_them() -> None:
    """1,500 boxes of one class that do not touch."""
    count = 1500
    corner = np.arange(count, dtype=np.float32) * 4
    table = np.stack([corner, corner, *np.ones((3, count), np.float32)])[None]
    decoder = Decoder(max_detections=2000)
    assert len(decode(decoder, table)["scores"]) == count


def test_a_decoder_that_does_not_fit_is_refused_with_the_shapes() -> None:
    with pytest.raises(ModelError, match="does not fit") as caught:
        decode(parse_decoder("yolox"), np.zeros((1, 7, 7), np.float32))
    assert "y0" in str(caught.value.where)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("yolo99", "no decoder is called"),
        ("yolov8{iou=2}", "--decoder"),
        ("yolov8{anchors=[1,2]}", "--decoder"),
        ("yolov5-heads{anchors=[1,2,3]}", "pairs"),
        ("yolov8{colour=red}", "--decoder"),
        ("yolov8{iou=0.5", "cannot read"),
        ("yolov8{preset=mine}", "is the name itself"),
        ("yolov8{min-score=0.1,min_score=0.2}", "given twice"),
        ("yolov5-heads{anchors=[nan,1,1,1,1,1]}", "anchors must be"),
        ("yolov5-heads{anchors=[-1,1,1,1,1,1]}", "anchors must be"),
        ("yolox{unit=side}", "centres and sizes in pixels"),
        ("yolov5-heads{boxes=xyxy}", "centres and sizes in pixels"),
        ("yolov10{boxes=xywh}", "nothing is left to compute"),
        ("yolov10{activation=sigmoid}", "nothing is left to compute"),
        ("yolov10{objectness=true}", "nothing is left to compute"),
    ],
)
def test_bad_decoders_get_one_sentence(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_decoder(text)


def recognised(proto: onnx.ModelProto) -> tuple[str, str]:
    model = from_bytes(proto.SerializeToString())
    found = recognise(model, read_exported(model.metadata_props))
    return ("" if found.decoder is None else found.decoder.preset), found.why


def with_names(proto: onnx.ModelProto, count: int, **more: str) -> onnx.ModelProto:
    names = {i: f"class {i}" for i in range(count)}
    helper.set_model_props(proto, {"stride": "32", "names": repr(names), **more})
    return proto


def test_what_is_certain_is_recognised() -> None:
    """By metadata, or by as many places as the image has cells."""
    assert recognised(yolov8())[0] == "yolov8"
    assert recognised(yolov8(metadata=None))[0] == "yolov8"
    assert recognised(yolox())[0] == "yolox"
    assert recognised(with_names(raw_model([1, 50, 8]), 3))[0] == "yolov5"
    assert recognised(with_names(raw_model([1, 300, 6]), 80, task="detect"))[0] == "yolov10"
    assert recognised(with_names(raw_model([1, 300, 84]), 80, task="detect"))[0] == "rtdetr"
    two = with_names(raw_model([1, 300, 6]), 2, task="detect")
    assert recognised(two)[0] == "rtdetr"
    assert recognised(with_names(two, 2, end2end="True"))[0] == "yolov10"
    assert recognised(raw_model([1, 3 * CELLS, 8]))[0] == "yolov5"


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (raw_model([1, CELLS, 8]), "objectness"),
        (raw_model([1, 21, 8, 8], [1, 21, 4, 4], [1, 21, 2, 2]), "yolov7-heads"),
        (with_names(raw_model([1, 38, CELLS]), 2, task="segment"), "masks"),
        (raw_model([1, 50, 8]), ""),
        (raw_model([1, 300, 6]), ""),
        (raw_model([1, 10, 64, 64]), ""),
    ],
)
def test_what_is_not_certain_is_not_taken(proto: onnx.ModelProto, words: str) -> None:
    """A hint where it looks like a detector, and silence where it does not."""
    name, why = recognised(proto)
    assert name == ""
    assert (words in why) if words else (why == "")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "{0: " * 50 + "1" + "}" * 50,
        "-" * 100_000 + "1",
        "__import__('os')",
        "0" * 300_000,
    ],
)
def test_hostile_metadata_is_no_literal(text: str) -> None:
    assert literal(text) is None


def test_names_with_holes_are_not_taken() -> None:
    """A label without a name would shift all names behind it."""
    for names in ("{0: 'a', 2: 'b'}", "{0: 1}", "5", "{[]: 1}", "names"):
        exported = read_exported({"stride": "8", "names": names})
        assert exported is not None
        assert exported.names == ()
    exported = read_exported({"stride": "8", "names": "['a', 'b']"})
    assert exported is not None
    assert exported.names == ("a", "b")


def test_names_and_sizes_that_nothing_can_hold_are_not_taken() -> None:
    """A lone surrogate cannot be written as UTF-8, an escape sequence paints the terminal, and a side of
    more digits than Python prints is no size."""
    for name in ("\\ud800", "\\x1b[31mred", "a\\nb"):
        exported = read_exported({"stride": "8", "names": f"{{0: '{name}'}}"})
        assert exported is not None
        assert exported.names == ()
    for side in ("0x" + "f" * 5000, "65537", "0", "True + 1"):
        exported = read_exported({"stride": "8", "names": "", "imgsz": f"[{side}, 64]"})
        assert exported is not None
        assert exported.size is None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "yolo.onnx"
    onnx.save(yolov8(), path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(picture()).save(folder / "photo.png")
    return folder


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        ("cpu", "fp32"),
        ("trt", "fp16"),
        ("trt", "int8"),
        ("npu", "a8w8"),
        ("npu", "xint8"),
        ("drpai", "int8"),
    ],
)
def test_known_boxes_survive_every_target(
    model: Path, photos: Path, tmp_path: Path, target: str, precision: str
) -> None:
    """Six objects in one picture, found by the bundle with their boxes, nothing else; and verified."""
    options = BuildOptions(
        precision=precision,
        calib=photos,
        golden_count=1,
        host_code=False,
        cache=False,
        backend_options={} if target == "cpu" else {"keep_small": "true"},
    )
    result = compile(model, target, tmp_path / "out", options)
    assert result.ok
    assert result.manifest.contract.classes == ("red", "green")
    with load(result.path) as bundle:
        outputs = bundle(photos / "photo.png")
    corners = np.rint(outputs["boxes"]).astype(int)
    found = {(int(n), tuple(map(int, b))) for n, b in zip(outputs["labels"], corners, strict=True)}
    assert found == EXPECTED
    assert outputs["scores"].min() > 0.9


def test_run_draws_what_was_decoded(model: Path, photos: Path, tmp_path: Path) -> None:
    compile(model, "cpu", tmp_path / "out", BuildOptions(golden_count=1, host_code=False))
    found = tmp_path / "found"
    assert main(["run", str(tmp_path / "out"), "-i", str(photos), "-o", str(found)]) == 0
    assert (found / "detections.png").is_file()


def test_decoder_none_leaves_the_raw_output(model: Path, tmp_path: Path) -> None:
    options = BuildOptions(decoder="none", golden_count=1, host_code=False)
    manifest = compile(model, "cpu", tmp_path / "out", options).manifest
    assert [spec.name for spec in manifest.model.outputs] == ["output0"]
    assert manifest.contract.decoder is None


def test_eval_decodes_the_model_as_the_bundle_does(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A decoder that only the build was told of is used for the ONNX file beside the bundle too."""
    path = tmp_path / "yolo.onnx"
    onnx.save(yolov8(), path)
    options = BuildOptions(decoder="yolov8{min-score=0.5}", golden_count=1, host_code=False)
    compile(path, "cpu", tmp_path / "out", options)
    assert main(["eval", str(path), str(tmp_path / "out"), "--images", str(photos), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["lowest"] == 1.0


@pytest.mark.parametrize(
    ("precision", "decoder"), [("a8w8", None), ("a8w8", "none"), ("a16w8", "none")]
)
def test_box_arithmetic_is_no_integer(
    model: Path, photos: Path, tmp_path: Path, precision: str, decoder: str | None
) -> None:
    """Whether the output is decoded or left raw: nothing behind the last layers is quantized."""
    options = BuildOptions(
        precision=precision,
        calib=photos,
        decoder=decoder,
        golden_count=1,
        host_code=False,
        backend_options={"keep_small": "true"},
    )
    manifest = compile(model, "npu", tmp_path / "out", options).manifest
    device = [part for part in manifest.parts if part.placement == "device"]
    names = {spec.name for part in device for spec in part.outputs}
    assert names == {f"{kind}{s}" for kind in ("sides", "kinds") for s in (8, 16, 32)}


def test_the_decoder_is_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "decoders", "--json"]) == 0
    assert "yolov8" in {row["decoder"] for row in json.loads(capsys.readouterr().out)}
    assert main(["explain-rule", "decode-detections"]) == 0


def test_metadata_of_the_model_is_complete() -> None:
    """The test's own model says what an export says."""
    exported = read_exported(METADATA)
    assert exported is not None
    assert exported.size == (SIDE, SIDE)
    assert exported.names == ("red", "green")


def test_eval_warns_of_scores_that_are_missing(
    model: Path, drawn: CocoSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A decoder's threshold lowers average precision; one that lets all scores through does not."""
    for score, warned in (("0.25", True), ("0.001", False)):
        options = BuildOptions(
            decoder=f"yolov8{{min-score={score}}}", golden_count=1, host_code=False
        )
        bundle = compile(model, "cpu", tmp_path / score, options).path
        names = tmp_path / "names.txt"
        names.write_text("\n".join(CLASSES), encoding="utf-8")
        words = ["eval", str(bundle), "--coco", str(drawn.source), "--images", str(drawn.folder)]
        assert main([*words, "--max-samples", "1", "--classes", str(names)]) == 0
        assert ("leaves out scores" in capsys.readouterr().out) == warned
