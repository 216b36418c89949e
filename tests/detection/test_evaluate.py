"""Evaluation: the numbers are pycocotools', subsets and mappings are honoured."""

from __future__ import annotations

import builtins
import contextlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from adcompile.detection.coco import CocoSet, RunLengths
from adcompile.detection.evaluate import Result, evaluate, side_by_side
from adcompile.detection.found import Found, Picture
from adcompile.detection.precision import ROWS, pack
from adcompile.detection.shapes import CLASSES, unrolled
from adcompile.errors import FormatError, ToolMissing, UsageError

Detector = Callable[[Picture], Mapping[str, Any]]


def _mask(lengths: object) -> np.ndarray:
    assert isinstance(lengths, RunLengths)
    assert isinstance(lengths.counts, list)
    return unrolled(lengths.counts, lengths.size)


def _oracle(coco: CocoSet, shift: float = 0.0, seed: int = 0) -> Detector:
    """A detector that knows the truth, moved by up to ``shift`` pixels, with wrong extras."""
    by_pixels = {coco.picture(image).tobytes(): image.id for image in coco.images}
    rng = np.random.default_rng(seed)

    def run(picture: Picture) -> Mapping[str, Any]:
        truth = coco.of_image(by_pixels[picture.tobytes()])
        corners = [[x, y, x + w, y + h] for x, y, w, h in (a.bbox for a in truth)]
        boxes = np.array(corners, dtype=float).reshape(-1, 4)
        boxes += rng.uniform(-shift, shift, boxes.shape)
        masks = [np.roll(_mask(a.segmentation), round(shift), axis=1) for a in truth]
        labels = [a.category_id for a in truth]
        if shift:
            labels = [1 + (x if rng.random() < 0.2 else x - 1) % 6 for x in labels]
        return {
            "boxes": boxes,
            "labels": np.array(labels, dtype=int),
            "scores": rng.uniform(0.3, 1, len(truth)),
            "masks": np.array(masks, dtype=np.float32).reshape(len(truth), 1, *picture.shape[:2]),
        }

    return run


def _nothing(picture: Picture) -> Mapping[str, Any]:
    none = np.zeros(0)
    return {"boxes": np.zeros((0, 4)), "labels": none, "scores": none}


def test_the_truth_scores_one(drawn: CocoSet) -> None:
    """Rule: perfect detections have AP 1 for boxes and masks; absent sizes are -1."""
    result = evaluate(_oracle(drawn), drawn.source, drawn.folder)
    assert result.images == 12
    assert result.detections == len(drawn.annotations)
    assert result.mask is not None
    for values in (result.box, result.mask):
        named = dict(zip(ROWS, values, strict=True))
        assert named["AP"] == named["AP50"] == named["AP75"] == 1.0
        assert named["AP large"] == -1.0


def test_numbers_are_those_of_pycocotools(drawn: CocoSet, tmp_path: Path) -> None:
    """Rule: the written predictions, scored by pycocotools itself, give the same 24 numbers."""
    target = tmp_path / "sub" / "found.json"
    result = evaluate(_oracle(drawn, 2.0), drawn.source, drawn.folder, predictions_to=target)
    entries = json.loads(target.read_text())
    assert result.mask is not None
    assert 0 < result.mask[0] < result.mask[1] < 1
    for kind, ours in (("bbox", result.box), ("segm", result.mask)):
        drop = "segmentation" if kind == "bbox" else "bbox"
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(drawn.source))
            rows = [{k: v for k, v in entry.items() if k != drop} for entry in entries]
            scorer = COCOeval(truth, truth.loadRes(rows), kind)
            scorer.evaluate()
            scorer.accumulate()
            scorer.summarize()
        assert ours == tuple(scorer.stats)


def test_subset_counts_only_its_images(drawn: CocoSet) -> None:
    """Rule: objects of images left out do not lower recall."""
    seen: list[tuple[int, int]] = []
    result = evaluate(
        _oracle(drawn), drawn.source, drawn.folder, 3, progress=lambda n, of: seen.append((n, of))
    )
    assert result.images == 3
    assert result.box[0] == 1.0
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert evaluate(_oracle(drawn), drawn.source, drawn.folder, ids=[4]).box[0] == pytest.approx(
        1.0
    )


def test_no_detections_score_zero(drawn: CocoSet) -> None:
    """Rule: a detector that finds nothing gets zeros, not an exception; without masks no rows."""
    result = evaluate(_nothing, drawn.source, drawn.folder)
    assert (result.detections, result.box[0], result.mask) == (0, 0.0, None)


def test_labels_are_mapped_by_name(drawn: CocoSet) -> None:
    """Rule: with class names, another label order gives the same result; a wrong one does not."""
    inner = _oracle(drawn)
    order = ["background", *reversed(CLASSES)]

    def reordered(picture: Picture) -> Mapping[str, Any]:
        outputs = dict(inner(picture))
        outputs["labels"] = np.array([order.index(CLASSES[x - 1]) for x in outputs["labels"]])
        return outputs

    names = dict(enumerate(order))
    assert evaluate(reordered, drawn.source, drawn.folder, classes=names).box[0] == 1.0
    assert evaluate(reordered, drawn.source, drawn.folder).box[0] < 0.5
    with pytest.raises(UsageError, match="no class disc"):
        evaluate(inner, drawn.source, drawn.folder, classes={1: "square"})


def test_strange_labels_are_left_out(drawn: CocoSet) -> None:
    """Rule: detections of classes the set lacks do not count against the detector."""
    inner = _oracle(drawn)

    def extra(picture: Picture) -> Mapping[str, Any]:
        outputs = dict(inner(picture))
        return {name: np.concatenate([value, value]) for name, value in outputs.items()} | {
            "labels": np.concatenate([outputs["labels"], outputs["labels"] + 50])
        }

    result = evaluate(extra, drawn.source, drawn.folder)
    assert result.detections == len(drawn.annotations)


def test_missing_images(drawn: CocoSet, tmp_path: Path) -> None:
    """Rule: missing images stop the run and are named, unless skipping was asked for."""
    folder = tmp_path / "images"
    folder.mkdir()
    for image in drawn.images[:2]:
        (folder / image.file_name).write_bytes((drawn.folder / image.file_name).read_bytes())
    run = _oracle(drawn)
    with pytest.raises(FormatError, match="10 of 12 images") as caught:
        evaluate(run, drawn.source, folder)
    assert "000003.png" in str(caught.value)
    result = evaluate(run, drawn.source, folder, skip_missing=True)
    assert (result.images, len(result.skipped)) == (2, 10)
    assert result.box[0] == pytest.approx(1.0)
    with pytest.raises(FormatError, match="9 of 9"):
        evaluate(run, drawn.source, folder, ids=range(3, 12), skip_missing=True)


def test_polygons_crowds_and_boxes_only(tmp_path: Path, picture_folder: Path) -> None:
    """Rule: polygons and crowd regions are scored; objects without mask allow boxes only."""
    square = {"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 1, 4, 3], "area": 12}
    crowd = {**square, "id": 2, "iscrowd": 1, "bbox": [0, 0, 8, 6], "area": 48}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
        "categories": [{"id": 2, "name": "dog"}],
        "annotations": [
            {**square, "iscrowd": 0, "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]]},
            {**crowd, "segmentation": {"size": [6, 8], "counts": [0, 48]}},
        ],
    }
    mask = np.zeros((2, 1, 6, 8))
    mask[0, 0, 1:4, 1:5] = 1
    mask[1, 0, 5, 6:] = 1  # inside the crowd: ignored

    def run(picture: Picture) -> Mapping[str, Any]:
        boxes = [[1, 1, 5, 4], [6, 5, 8, 6]]
        return {"boxes": boxes, "labels": [2, 2], "scores": [0.5, 0.9], "masks": mask}

    path = tmp_path / "ann.json"
    path.write_text(json.dumps(document))
    result = evaluate(run, path, picture_folder)
    assert result.mask is not None
    assert result.box[0] == result.mask[0] == pytest.approx(1.0)
    document["annotations"] = [square]
    path.write_text(json.dumps(document))
    boxes_only = evaluate(run, path, picture_folder)
    assert boxes_only.mask is None
    # Without the crowd region the other detection is a false alarm that scores higher.
    assert boxes_only.box[0] == pytest.approx(0.5)


def test_masks_of_the_wrong_size(drawn: CocoSet) -> None:
    """Rule: masks at the network's size instead of the picture's are refused."""

    def run(picture: Picture) -> Mapping[str, Any]:
        return {
            "boxes": [[0, 0, 1, 1]],
            "labels": [1],
            "scores": [1.0],
            "masks": np.ones((1, 1, 7, 7)),
        }

    with pytest.raises(FormatError, match="size of the image"):
        evaluate(run, drawn.source, drawn.folder)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"boxes": np.zeros((1, 4)), "labels": [1]}, "no scores"),
        ({"boxes": np.zeros((1, 4)), "labels": [1, 2], "scores": [1.0]}, "do not fit"),
        ({"boxes": np.zeros((1, 5)), "labels": [1], "scores": [1.0]}, "do not fit"),
        ({"boxes": 3.0, "labels": [1], "scores": [1.0]}, "do not fit"),
        (
            {"boxes": np.zeros((1, 4)), "labels": [1], "scores": [1.0], "masks": np.ones((2, 2))},
            "masks have shape",
        ),
    ],
)
def test_outputs_that_are_no_detections(outputs: Mapping[str, Any], words: str) -> None:
    """Rule: outputs that do not fit together are named with their shapes."""
    with pytest.raises(FormatError, match=words):
        Found.of(outputs)


def test_missing_pycocotools(drawn: CocoSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule: without pycocotools the error says what to install."""
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("pycocotools"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ToolMissing, match=r"adcompile\[eval\]"):
        evaluate(_nothing, drawn.source, drawn.folder)


# pycocotools' own decoder uses NumPy's old copy protocol.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_packed_masks_decode() -> None:
    """Rule: packed run lengths are pycocotools' own."""
    from pycocotools import mask as tools

    masks = np.random.default_rng(0).random((3, 5, 9)) < 0.4
    assert (np.stack([tools.decode(p) for p in pack(masks)]) == masks).all()
    assert pack(masks[:0]) == []


def test_results_side_by_side() -> None:
    """Rule: values in percent, losses against the first column, absent values are words."""
    first = Result(5, (), 9, (0.5, *[-1.0] * 11), (0.4,) * 12)
    second = Result(5, (), 9, (0.48, *[-1.0] * 11), (0.41,) * 12)
    rows = side_by_side({"float": first, "int8": second})
    assert len(rows) == 24
    assert rows[0] == ("box AP", "50.00", "48.00", "2.00")
    assert rows[1] == ("box AP50", "none", "none", "")
    assert rows[12] == ("mask AP", "40.00", "41.00", "-1.00")
    assert len(side_by_side({"float": first, "boxes": Result(5, (), 9, first.box, None)})) == 12
    assert json.loads(json.dumps(first.record()))["mask"]["AP"] == 0.4
