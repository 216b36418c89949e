"""``eval --images`` without annotations: what is measured, and when it says no."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adcompile.check.agreement import Agreement, agreement, correctness, find_sources
from adcompile.cli import main
from adcompile.errors import InputError
from adcompile.ir.model_io import to_bytes
from tests.rewrite.build import model as parse

TEXT = """
g (float[1, 3, 16, 16] image) => (float[1, 4, 16, 16] masks_of, float[1, 4] classes)
{
    a = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(image, w)
    masks_of = Softmax<axis=1>(a)
    p = GlobalAveragePool(a)
    classes = Flatten(p)
}
"""
IMAGES = 4


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with class scores and a label map, a worse copy, and folders named by class."""
    folder = tmp_path_factory.mktemp("agreement")
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    (folder / "m.onnx").write_bytes(to_bytes(parse(TEXT, {"w": weight})))
    (folder / "other.onnx").write_bytes(to_bytes(parse(TEXT, {"w": weight[::-1].copy()})))
    rng = np.random.default_rng(1)
    for number in range(IMAGES):
        home = folder / "images" / "abcd"[number]
        home.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(home / "x.png")
    return folder


def test_a_bundle_is_held_against_its_model(
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Same classes and pixels; the right answers of both; another network is below the bound."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model, images = str(work / "m.onnx"), str(work / "images")
    build = ["build", model, "-t", "npu", "--precision", "a8w8", "-O", "min_macs=0", "-o"]
    photo = ["--golden", str(work / "images/a/x.png"), "--preprocess", "imagenet"]
    assert main([*build, str(tmp_path / "out"), *photo, "--no-host-code"]) == 0
    capsys.readouterr()
    words = ["eval", model, str(tmp_path / "out"), "--images", images, "--min-agreement", "0.7"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == IMAGES
    rows = found["agreement"]["out (simulated)"]
    measures = {(row["output"], row["measure"]): row["mean"] for row in rows}
    assert measures["masks_of", "pixels of the same class"] > 0.9
    assert measures["classes", "cosine"] > 0.99
    assert set(found["accuracy"]) == {"m.onnx", "out (simulated)"}
    words[2] = str(work / "other.onnx")
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "below --min-agreement" in said
    assert "a/x.png" in said


def test_what_cannot_be_compared(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One subject, nothing to evaluate on, an empty folder, folders that are no classes."""
    model, other = str(work / "m.onnx"), str(work / "other.onnx")
    assert main(["eval", model, "--images", str(work / "images")]) == 2
    assert "adcompile eval MODEL.onnx" in capsys.readouterr().err
    assert main(["eval", model]) == 2
    assert main(["eval", model, other, "--images", str(tmp_path)]) == 2
    assert "no image" in capsys.readouterr().err
    (tmp_path / "one").mkdir()
    (tmp_path / "one/x.png").write_bytes((work / "images/a/x.png").read_bytes())
    assert main(["eval", model, other, "--images", str(tmp_path)]) == 0
    assert "sub-folders" not in capsys.readouterr().out  # one folder, four classes
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\nd\n")
    assert main(["eval", model, other, "--images", str(tmp_path), "--classes", str(names)]) == 2
    assert "no class is called 'one'" in capsys.readouterr().err


def test_measures() -> None:
    """Pixels and IoU by hand; detections in another order; the right label."""
    left = np.zeros((1, 2, 8, 8), np.float32)
    left[0, 1, :, :4] = 1.0
    right = left.copy()
    right[0, 1, :2, :4] = -1.0
    found = agreement({"m": left}, {"m": right}, {"m": "class_map"})
    assert found["m", "pixels of the same class"] == pytest.approx(56 / 64)
    assert found["m", "mean IoU of the classes"] == pytest.approx((24 / 32 + 32 / 40) / 2)
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    first = {"b": boxes, "s": np.array([0.9, 0.8], np.float32)}
    second = {"b": boxes[::-1][:1], "s": np.array([0.8], np.float32)}
    roles = {"b": "boxes", "s": "scores"}
    found = agreement(first, second, roles)
    assert found["b", "detections found again"] == 0.5
    assert found["b", "detections that are not new"] == 1.0
    assert correctness({"c": np.array([[0.1, 0.9]], np.float32)}, 1) == {("c", "right class"): 1.0}
    with pytest.raises(InputError, match="has shape"):
        agreement({"m": left}, {"m": left[:, :1]}, {})


def test_the_lowest_looks_at_decisions_first() -> None:
    """A cosine counts only where there is no decision."""
    both = Agreement()
    both.add("x", {("c", "same top class"): 1.0, ("c", "cosine"): 0.5})
    assert both.lowest() == 1.0
    both.add("y", {("c", "same top class"): 0.0, ("c", "cosine"): 0.5})
    assert both.lowest() == 0.5
    assert both.rows()[0].worst_image == "y"


def lowest_of(reference: object, actual: object) -> float:
    """What ``--min-agreement`` is held against, for one output on one image."""
    result = Agreement()
    result.add("x.png", agreement({"y": np.asarray(reference)}, {"y": np.asarray(actual)}, {}))
    return result.lowest()


def test_what_is_not_finite_cannot_pass() -> None:
    """Masked scores agree where the others do; a NaN of the compiled model never does."""
    scores = np.asarray([[1.0, 3.0, -np.inf, -2.0]])
    assert lowest_of(scores, scores) == 1.0
    assert lowest_of(scores, -scores) == 0.0
    assert lowest_of(scores, np.where(np.isinf(scores), -np.inf, -scores)) == 0.0
    values = np.asarray([0.5, 0.0, 2.0])
    assert lowest_of(values, [0.5, np.nan, 2.0]) == 0.0
    assert lowest_of([0.5, np.nan, 2.0], values) == 0.0
    assert lowest_of([0.5, np.nan, 2.0], [0.5, np.nan, 2.0]) == pytest.approx(1.0)


def test_texts_that_differ_cannot_pass() -> None:
    assert lowest_of(np.asarray(["cat"]), np.asarray(["cat"])) == 1.0
    assert lowest_of(np.asarray(["cat"]), np.asarray(["dog"])) == 0.0


def test_the_worst_image_is_that_of_the_measure() -> None:
    """The first image has no detections, so no cosine."""
    result = Agreement()
    none, some = np.zeros((0, 3)), np.ones((1, 3))
    for name, left, right in (("a", none, none), ("b", some, some), ("c", some, some * [1, 1, 9])):
        result.add(name, agreement({"y": left}, {"y": right}, {}))
    worst = {row.measure: row.worst_image for row in result.rows()}
    assert worst["cosine"] == "c"


def test_two_files_of_one_name_are_two_subjects(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.onnx").write_bytes((work / "other.onnx").read_bytes())
    words = [str(work / "m.onnx"), str(work / "m.onnx"), str(tmp_path / "m.onnx")]
    assert main(["eval", *words, "--images", str(work / "images"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["agreement"]) == {"m.onnx'", "m.onnx''"}
    assert main(["eval", *words, "--images", str(work / "images"), "--max-samples", "0"]) == 2


def test_the_first_images_are_of_all_classes(tmp_path: Path) -> None:
    for home in "ab":
        (tmp_path / home).mkdir()
        for name in ("1.png", "2.png", "3.png")[: 2 + (home == "b")]:
            (tmp_path / home / name).touch()
    found = [f"{home}/{path.name}" for path, home in find_sources(tmp_path)]
    assert found == ["a/1.png", "b/1.png", "a/2.png", "b/2.png", "b/3.png"]
