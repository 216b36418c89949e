"""COCO files: what is wrong is said, with the entry at fault."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adcompile.detection.coco import category_ids, read_classes, read_coco
from adcompile.errors import FormatError, InputError, UsageError

Document = dict[str, Any]


def _document() -> Document:
    return {
        "info": {"year": 2017},
        "images": [{"id": 3, "file_name": "a.png", "width": 8, "height": 6, "license": 1}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 3,
                "category_id": 18,
                "bbox": [1, 1, 4, 3],
                "area": 12,
                "iscrowd": 0,
                "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]],
            }
        ],
    }


def _write(folder: Path, document: object) -> Path:
    path = folder / "ann.json"
    path.write_text(json.dumps(document))
    return path


def test_a_real_file_is_read(tmp_path: Path, picture_folder: Path) -> None:
    """Rule: unknown keys are ignored, images and categories come by id."""
    coco = read_coco(_write(tmp_path, _document()), picture_folder)
    assert coco.names == {1: "person", 18: "dog"}
    assert coco.picture(coco.images[0]).shape == (6, 8, 3)
    assert [a.id for a in coco.of_image(3)] == [1]


def _without(key: str) -> Document:
    document = _document()
    del document[key]
    return document


def _with(section: str, **values: object) -> Document:
    document = _document()
    document[section][0].update(values)
    return document


def _twice(section: str) -> Document:
    document = _document()
    document[section].append(dict(document[section][0]))
    return document


BAD: dict[str, tuple[object, str]] = {
    "list": ([1, 2], "not a COCO detection file"),
    "no images": (_without("images"), "images"),
    "no categories": (_without("categories"), "categories"),
    "no annotations": (_without("annotations"), "annotations"),
    "empty images": ({**_document(), "images": []}, "images"),
    "unknown image": (_with("annotations", image_id=99), "image_id the file does not define"),
    "unknown category": (_with("annotations", category_id=2), "category_id the file does not"),
    "short box": (_with("annotations", bbox=[1, 2, 3]), "annotations.0.bbox"),
    "text box": (_with("annotations", bbox="no"), "annotations.0.bbox"),
    "infinite box": (_with("annotations", bbox=[float("nan"), 0, 1, 1]), "annotations.0.bbox"),
    "negative area": (_with("annotations", area=-1), "annotations.0.area"),
    "two-point polygon": (_with("annotations", segmentation=[[1, 2, 3, 4]]), "segmentation"),
    "no width": (_with("images", width=0), "images.0.width"),
    "image twice": (_twice("images"), "image id 3 is used twice"),
    "category twice": (_twice("categories"), "category id 18 is used twice"),
    "annotation twice": (_twice("annotations"), "annotation id 1 is used twice"),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_files_are_named(name: str, tmp_path: Path, picture_folder: Path) -> None:
    """Rule: a damaged file gives a FormatError that names the place."""
    document, words = BAD[name]
    with pytest.raises(FormatError) as caught:
        read_coco(_write(tmp_path, document), picture_folder)
    assert words in str(caught.value)
    assert "ann.json" in str(caught.value)


def test_text_that_is_no_json(tmp_path: Path, picture_folder: Path) -> None:
    """Rule: truncated JSON is a FormatError, not a traceback of the parser."""
    path = tmp_path / "ann.json"
    path.write_text(json.dumps(_document())[:40])
    with pytest.raises(FormatError, match="not a COCO detection file"):
        read_coco(path, picture_folder)


def test_missing_file_and_folder(tmp_path: Path, picture_folder: Path) -> None:
    """Rule: paths that are not there are usage errors."""
    with pytest.raises(UsageError, match="cannot be read"):
        read_coco(tmp_path / "no.json", picture_folder)
    with pytest.raises(UsageError, match="folder does not exist"):
        read_coco(_write(tmp_path, _document()), tmp_path / "none")


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "C:\\a.png", "x\\..\\..\\a", ""])
def test_file_names_stay_inside_the_folder(
    name: str, tmp_path: Path, picture_folder: Path
) -> None:
    """Rule: a file name cannot lead out of the image folder."""
    coco = read_coco(_write(tmp_path, _with("images", file_name=name)), picture_folder)
    with pytest.raises(FormatError, match="outside the image folder"):
        coco.picture(coco.images[0])


def test_wrong_size_and_damaged_picture(tmp_path: Path, picture_folder: Path) -> None:
    """Rule: a picture of another size than annotated, or no picture at all, is refused."""
    coco = read_coco(_write(tmp_path, _with("images", width=9)), picture_folder)
    with pytest.raises(FormatError, match="another size"):
        coco.picture(coco.images[0])
    (picture_folder / "a.png").write_bytes(b"not a picture")
    with pytest.raises(FormatError, match="not an image"):
        coco.picture(coco.images[0])


def test_grey_and_16_bit_pictures_become_rgb(tmp_path: Path, picture_folder: Path) -> None:
    """Rule: whatever the file holds, the detector gets RGB with 8 bits."""
    coco = read_coco(_write(tmp_path, _document()), picture_folder)
    Image.fromarray(np.full((6, 8), 0x1234, np.uint16)).save(picture_folder / "a.png")
    assert (coco.picture(coco.images[0]) == np.full((6, 8, 3), 0x12, np.uint8)).all()
    Image.new("L", (8, 6), 9).save(picture_folder / "a.png")
    assert (coco.picture(coco.images[0]) == np.full((6, 8, 3), 9, np.uint8)).all()


def test_subset(tmp_path: Path, picture_folder: Path) -> None:
    """Rule: ids choose, then the count cuts; unknown ids and counts below one are refused."""
    document = _document()
    document["images"] += [{**document["images"][0], "id": i} for i in (7, 5)]
    coco = read_coco(_write(tmp_path, document), picture_folder)
    assert [x.id for x in coco.subset()] == [3, 5, 7]
    assert [x.id for x in coco.subset(2)] == [3, 5]
    assert [x.id for x in coco.subset(2, [7, 3, 7, 5])] == [7, 3]
    with pytest.raises(UsageError, match="no image with id 4"):
        coco.subset(ids=[3, 4])
    with pytest.raises(UsageError, match="at least one"):
        coco.subset(0)


def test_categories_are_matched_by_name(tmp_path: Path, picture_folder: Path) -> None:
    """Rule: labels meet categories by name; strangers on the model's side are left out."""
    coco = read_coco(_write(tmp_path, _document()), picture_folder)
    names = {0: "background", 1: "Dog ", 2: "PERSON", 3: "cat"}
    assert category_ids(coco, names) == {1: 18, 2: 1}
    assert category_ids(coco, None) == {1: 1, 18: 18}
    with pytest.raises(UsageError, match="no class person"):
        category_ids(coco, {1: "dog"})
    with pytest.raises(UsageError, match="two labels"):
        category_ids(coco, {1: "dog", 2: "dog", 3: "person"})


def test_class_files(tmp_path: Path) -> None:
    """Rule: names come from a JSON list, a JSON object or lines of text."""
    (tmp_path / "a.json").write_text('["background", "dog"]')
    (tmp_path / "b.json").write_text('{"18": "dog"}')
    (tmp_path / "c.txt").write_text("background\ndog\n")
    assert read_classes(tmp_path / "a.json") == {0: "background", 1: "dog"}
    assert read_classes(tmp_path / "b.json") == {18: "dog"}
    assert read_classes(tmp_path / "c.txt") == {0: "background", 1: "dog"}
    (tmp_path / "d.json").write_text("[1, {}]")
    for bad in ("d.json", "none.txt"):
        with pytest.raises(InputError, match="class names cannot be read"):
            read_classes(tmp_path / bad)


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 99)
    | st.floats(allow_nan=True)
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(
    section=st.sampled_from(["images", "categories", "annotations"]),
    key=st.sampled_from(
        ["id", "file_name", "width", "name", "bbox", "area", "segmentation", "image_id"]
    ),
    value=junk,
)
def test_mutated_files_are_read_or_refused(
    section: str, key: str, value: object, tmp_path: Path, picture_folder: Path
) -> None:
    """Rule: any value in any place is either accepted or an InputError, nothing else."""
    path = _write(tmp_path, _with(section, **{key: value}))
    with contextlib.suppress(InputError):
        coco = read_coco(path, picture_folder)
        coco.missing(coco.images)
        assert coco.picture(coco.images[0]).shape == (6, 8, 3)
