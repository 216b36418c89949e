"""The drawn detection set is deterministic and its annotations are true."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adcompile.cli import main
from adcompile.detection.coco import CocoSet, RunLengths
from adcompile.detection.shapes import (
    CLASSES,
    Recipe,
    draw_scene,
    run_lengths,
    unrolled,
    write_set,
)
from adcompile.errors import UsageError


def test_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    """Rule: seed and count decide every byte."""
    for name in ("one", "two"):
        write_set(tmp_path / name, "val", 3, seed=5)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 4
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_processes_change_nothing(tmp_path: Path) -> None:
    """Rule: two processes write the bytes that one writes, annotations in order."""
    small = Recipe(sides=(40, 56))
    for name, jobs in (("one", 1), ("two", 2)):
        write_set(tmp_path / name, "val", 20, seed=5, recipe=small, jobs=jobs)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 21
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_more_images_do_not_change_the_first_ones(tmp_path: Path) -> None:
    """Rule: an image depends on its index, not on how many are written."""
    write_set(tmp_path / "a", "val", 1, seed=5)
    write_set(tmp_path / "b", "val", 2, seed=5)
    first = Path("val/000001.png")
    assert (tmp_path / "a" / first).read_bytes() == (tmp_path / "b" / first).read_bytes()


def test_another_seed_draws_something_else() -> None:
    """Rule: the seed matters."""
    assert draw_scene(1, 0).image.tobytes() != draw_scene(2, 0).image.tobytes()


def test_annotations_match_their_masks(drawn: CocoSet) -> None:
    """Rule: box is the tight box of the mask, area its pixels, and visible masks do not overlap."""
    for image in drawn.images:
        total = np.zeros((image.height, image.width), dtype=int)
        for annotation in drawn.of_image(image.id):
            assert isinstance(annotation.segmentation, RunLengths)
            assert isinstance(annotation.segmentation.counts, list)
            mask = unrolled(annotation.segmentation.counts, annotation.segmentation.size)
            assert mask.shape == (image.height, image.width)
            assert annotation.area == mask.sum() >= 48
            ys, xs = np.nonzero(mask)
            size = (np.ptp(xs) + 1, np.ptp(ys) + 1)
            assert annotation.bbox == (xs.min(), ys.min(), *size)
            total += mask
        assert total.max() <= 1


def test_the_set_is_varied() -> None:
    """Rule: every class, several picture sizes, small and large objects, some overlap."""
    scenes = [draw_scene(9, index) for index in range(40)]
    kinds = Counter(c for scene in scenes for c in scene.categories)
    assert set(kinds) == set(range(1, len(CLASSES) + 1))
    assert len({scene.image.shape for scene in scenes}) > 20
    areas = [int(m.sum()) for scene in scenes for m in scene.masks]
    assert min(areas) < 250
    assert max(areas) > 1500


def test_recipe_bounds_hold() -> None:
    """Rule: picture sides and number of objects stay within the recipe."""
    recipe = Recipe(sides=(64, 80), objects=(2, 3), radius=(6, 9))
    for index in range(10):
        scene = draw_scene(0, index, recipe)
        assert all(64 <= side <= 80 for side in scene.image.shape[:2])
        assert len(scene.masks) == len(scene.categories) <= 3


def test_a_set_of_nothing_is_refused(tmp_path: Path) -> None:
    """Rule: no empty sets."""
    with pytest.raises(UsageError, match="at least one image"):
        write_set(tmp_path, "val", 0, seed=1)


@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_run_lengths_decode_to_the_mask(mask: np.ndarray) -> None:
    """Rule: run lengths are COCO's: column order, zeros first."""
    counts = run_lengths(mask)
    assert sum(counts) == mask.size
    assert (unrolled(counts, mask.shape) == mask).all()
    with pytest.raises(UsageError, match="do not fill"):
        unrolled([*counts, 1], mask.shape)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``adcompile synth --coco``: the same set, and never over one that is there."""
    command = ["synth", "-o", str(tmp_path / "set"), "--coco", "2", "--seed", "3", "--json"]
    assert main(command) == 0
    made = Path(json.loads(capsys.readouterr().out)["annotations"])
    assert made.read_bytes() == write_set(tmp_path / "other", "val", 2, seed=3).read_bytes()
    assert main(command) == 2
    assert main([*command, "--split", "train"]) == 0
    assert (tmp_path / "set" / "annotations" / "train.json").is_file()
    assert main([*command, "--split", "../elsewhere"]) == 2
    assert not (tmp_path / "elsewhere").exists()
