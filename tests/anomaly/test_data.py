"""Every data layout is read; a wrong one is answered with the expected and the found tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adcompile.anomaly.images import mask_tensor, read_mask, read_pixels, tensor_of
from adcompile.anomaly.layouts import read_folder
from adcompile.anomaly.lists import read_file_lists, read_labelled, read_path_list, read_r0_lists
from adcompile.anomaly.samples import Sample, SplitOptions, share
from adcompile.contract import Preprocess
from adcompile.errors import AdcompileError, FormatError, InputError, UsageError


def image(path: Path, mode: str = "RGB", size: tuple[int, int] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 1).save(path)
    return path


def fill(folder: Path, count: int) -> None:
    for index in range(count):
        image(folder / f"{index:02d}.png")


def mvtec(root: Path) -> Path:
    fill(root / "train" / "good", 4)
    fill(root / "test" / "good", 4)
    fill(root / "test" / "傷", 4)
    for index in range(4):
        image(root / "ground_truth" / "傷" / f"{index:02d}_mask.png", "L")
    return root


def test_mvtec_with_masks_and_non_ascii_names(tmp_path: Path) -> None:
    """Half of the test images validate, per label; masks pair with images by name."""
    data = read_folder(mvtec(tmp_path / "木材"))
    assert (data.layout, data.category) == ("mvtec", "木材")
    assert len(data.train) == 4
    assert [s.label for s in data.validation] == [0, 0, 1, 1]
    assert [s.label for s in data.test] == [0, 0, 1, 1]
    assert data.has_masks()
    assert {s.kind for s in data.test} == {"good", "傷"}
    assert not {s.path for s in data.test} & {s.path for s in data.validation}


def test_split_is_seeded(tmp_path: Path) -> None:
    """The same seed splits the same way; another seed differs; "same" reuses the test images."""
    root = mvtec(tmp_path / "m")
    fill(root / "test" / "good", 12)
    first = read_folder(root, SplitOptions(seed=1))
    assert first == read_folder(root, SplitOptions(seed=1))
    assert first.test != read_folder(root, SplitOptions(seed=2)).test
    same = read_folder(root, SplitOptions(validation="same"))
    assert same.validation == same.test


def test_masks_without_images_are_refused(tmp_path: Path) -> None:
    """A mask whose image is missing is an error; an image without mask is a note."""
    root = mvtec(tmp_path / "m")
    (root / "ground_truth" / "傷" / "00_mask.png").unlink()
    assert "1 anomalous test images have no mask" in read_folder(root).notes[0]
    image(root / "ground_truth" / "傷" / "99_mask.png", "L")
    with pytest.raises(InputError, match="masks without images"):
        read_folder(root)


def test_good_and_bad_folders(tmp_path: Path) -> None:
    """Aliases are understood; kinds come from sub-folders; a share of good images is tested."""
    fill(tmp_path / "OK" / "day1", 10)
    fill(tmp_path / "NG" / "dent", 2)
    fill(tmp_path / "NG" / "crack", 2)
    data = read_folder(tmp_path, SplitOptions(test_ratio=0.2))
    assert data.layout == "folder"
    assert len(data.train) == 8
    everything = (*data.validation, *data.test)
    assert sorted(s.kind for s in everything) == ["crack", "crack", "dent", "dent", "good", "good"]


def test_r1_tree(tmp_path: Path) -> None:
    """train/CATEGORY is normal, test/CATEGORY/normal|anomaly is labelled."""
    fill(tmp_path / "train" / "pipe", 3)
    fill(tmp_path / "test" / "pipe" / "normal", 2)
    fill(tmp_path / "test" / "pipe" / "anomaly", 2)
    data = read_folder(tmp_path, SplitOptions(validation="same"))
    assert (data.layout, data.category) == ("r1", "pipe")
    assert [s.label for s in data.test] == [0, 0, 1, 1]
    with pytest.raises(UsageError, match="no category"):
        read_folder(tmp_path, category="screw")


def test_normal_images_only(tmp_path: Path) -> None:
    """A plain folder trains; validation is a share of it, and the note says so."""
    fill(tmp_path / "a", 3)
    fill(tmp_path / "b", 2)
    data = read_folder(tmp_path)
    assert data.layout == "images"
    assert len(data.train) + len(data.validation) == 5
    assert data.test == ()
    assert "validation is taken from the normal images" in data.notes[0]


def test_wrong_layout_shows_both_trees(tmp_path: Path) -> None:
    """The error holds what was expected and what was found, with image counts."""
    fill(tmp_path / "train" / "normals", 3)
    with pytest.raises(InputError, match="none of the known layouts") as caught:
        read_folder(tmp_path)
    assert "DIR/train/good/*.png" in caught.value.why
    assert "normals/" in caught.value.why
    assert "(3 images)" in caught.value.why


def test_several_categories_ask_for_a_name(tmp_path: Path) -> None:
    """A collection of categories lists them."""
    mvtec(tmp_path / "a")
    mvtec(tmp_path / "b")
    with pytest.raises(UsageError, match="several categories") as caught:
        read_folder(tmp_path)
    assert caught.value.why == "a, b"
    assert read_folder(tmp_path, category="b").category == "b"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932"])
def test_path_lists(tmp_path: Path, encoding: str) -> None:
    """CSV and text lists, with header, comments and relative paths, in three encodings."""
    image(tmp_path / "画像" / "1.png")
    image(tmp_path / "2.png")
    listing = tmp_path / "list.csv"
    rows = f'path,label\n# comment\n画像/1.png,0\n\n"{tmp_path / "2.png"}",1\n'
    listing.write_bytes(rows.encode(encoding))
    assert read_path_list(listing) == [tmp_path / "画像/1.png", tmp_path / "2.png"]


def test_r0_lists_and_file_lists(tmp_path: Path) -> None:
    """data_paths with one label each; missing files and unpaired masks are errors."""
    fill(tmp_path / "ok", 4)
    fill(tmp_path / "ng", 2)
    data = read_r0_lists(
        [tmp_path / "ok"], [tmp_path / "ok", tmp_path / "ng"], [0, 1], [tmp_path / "ng"], [1]
    )
    assert [s.label for s in data.validation] == [0, 0, 0, 0, 1, 1]
    assert len(data.test) == 2
    with pytest.raises(InputError, match="no train data"):
        read_r0_lists([], [], [])
    with pytest.raises(UsageError, match="differ in number"):
        read_labelled([tmp_path / "ok"], [])
    with pytest.raises(UsageError, match="labels must be 0"):
        read_labelled([tmp_path / "ok"], [2])
    (tmp_path / "x.txt").write_text("ok/00.png\nok/99.png\n")
    with pytest.raises(InputError, match="does not exist"):
        read_path_list(tmp_path / "x.txt")
    listed = read_file_lists([tmp_path / "ok"], [tmp_path / "ng"])
    assert listed.layout == "filelist"
    with pytest.raises(InputError, match="differ in number"):
        read_file_lists([tmp_path / "ok"], [tmp_path / "ng"], [tmp_path / "ok"])


def test_nothing_to_train_on(tmp_path: Path) -> None:
    """Missing folder, empty training folder, bad ratio: refused before any work."""
    with pytest.raises(InputError, match="no such data folder"):
        read_folder(tmp_path / "none")
    (tmp_path / "train" / "good").mkdir(parents=True)
    with pytest.raises(InputError, match="no normal training image"):
        read_folder(tmp_path)
    fill(tmp_path / "train" / "good", 1)
    data = read_folder(tmp_path)
    assert data.train == data.validation
    with pytest.raises(UsageError, match="split ratio"):
        read_folder(tmp_path, SplitOptions(test_ratio=0.0))


def test_share_keeps_one_of_each_label() -> None:
    """Two or more of a label give at least one to each side; a single one stays."""
    samples = [Sample(Path(str(i)), int(i > 7)) for i in range(9)]
    rest, held = share(samples, 0.05, 0)
    assert (len(rest), len(held)) == (8, 1)
    assert [s.label for s in held] == [0]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "I;16", "1"])
def test_every_kind_of_image_becomes_a_tensor(tmp_path: Path, mode: str) -> None:
    """Grey, palette, alpha, bilevel and 16-bit files give a float32 [1, 3, H, W]."""
    path = image(tmp_path / "é.png", mode)
    assert tensor_of(path, Preprocess(size=(8, 8))).shape == (1, 3, 8, 8)


def test_bad_images_are_named(tmp_path: Path) -> None:
    """Unreadable and tiny files raise with their path."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    tiny = image(tmp_path / "tiny.png", size=(3, 3))
    for path in (broken, tiny, tmp_path / "none.png"):
        with pytest.raises(AdcompileError) as caught:
            read_pixels(path)
        assert str(path) in caught.value.where
    with pytest.raises(FormatError, match="too small"):
        read_pixels(tiny)


def test_masks_follow_the_image(tmp_path: Path) -> None:
    """A mask is cropped like its image: what lies outside the crop disappears."""
    pixels = np.zeros((256, 256), np.uint8)
    pixels[:10, :10] = 255
    pixels[100:130, 120:140] = 7
    Image.fromarray(pixels).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    assert mask.sum() == 100 + 600
    spec = Preprocess(size=(224, 224), resize_to=(256, 256), crop=(224, 224))
    moved = mask_tensor(mask, spec)
    assert moved.shape == (224, 224)
    assert moved.sum() == 600
    assert moved[84:114, 104:124].all()


def test_lists_and_yaml_as_data(twill_folder: Path, tmp_path: Path) -> None:
    """A list of good images, a YAML of lists, and R0's configuration are data sets."""
    from adcompile.anomaly.sources import read_data

    good = tmp_path / "gut ö.txt"
    names = [str(p) for p in sorted((twill_folder / "train" / "good").iterdir())]
    good.write_text("\n".join(names), encoding="utf-8")
    (tmp_path / "bad").symlink_to(twill_folder / "test" / "spot")
    alone = read_data(good)
    assert len(alone.train) + len(alone.validation) == len(names)
    (tmp_path / "lists.yaml").write_text(f"good: [{good.name}]\nbad: [bad]\n", encoding="utf-8")
    both = read_data(tmp_path / "lists.yaml")
    assert sum(s.label for s in (*both.validation, *both.test)) == 2
    r0 = tmp_path / "r0.yaml"
    r0.write_text(
        f"coreset_sampling_ratio: 0.1\ntrain: {{data_paths: [{good.name}]}}\n"
        f"val: {{data_paths: [{good.name}, bad], labels: [0, 1]}}\n"
        f"test: {{enable: false, data_paths: [nowhere], labels: [1]}}\n",
        encoding="utf-8",
    )
    found = read_data(r0)
    assert len(found.train) == len(names)
    assert [s.label for s in found.validation] == [0] * len(names) + [1, 1]
    assert found.test == ()
    (tmp_path / "odd.yaml").write_text("good: 3\n", encoding="utf-8")
    with pytest.raises(FormatError, match="description is not valid"):
        read_data(tmp_path / "odd.yaml")
    with pytest.raises(InputError, match="no such data"):
        read_data(tmp_path / "none")
