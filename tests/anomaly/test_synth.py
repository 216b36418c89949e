"""The generator is deterministic, covers what it promises, and its masks mark what changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from adcompile.anomaly.layouts import categories, read_folder
from adcompile.anomaly.synth.dataset import CATEGORIES, SynthOptions, make_image, write_dataset
from adcompile.anomaly.synth.defects import DEFECTS, LEVELS
from adcompile.anomaly.synth.objects import OBJECTS
from adcompile.anomaly.synth.textures import TEXTURES
from adcompile.cli import main
from adcompile.errors import UsageError


def test_promised_variety() -> None:
    """At least eight textures, three objects, six defects, three levels."""
    assert len(TEXTURES) >= 8
    assert len(OBJECTS) >= 3
    assert set(DEFECTS) == {"scratch", "spot", "hole", "bend", "missing", "contamination"}
    assert list(LEVELS) == ["easy", "medium", "hard"]


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("kind", ["good", *DEFECTS])
def test_every_category_takes_every_defect(category: str, kind: str) -> None:
    """A defect has a small, nonempty mask; a good image none; both fit the size."""
    made = make_image(category, 0, kind=kind, size=64)
    assert made.pixels.shape == (64, 64, 3)
    assert made.mask.any() == (kind != "good")
    assert made.mask.mean() < 0.25
    assert made.pixels.std() > 3


def test_same_arguments_same_pixels_and_other_index_other_pixels() -> None:
    """Images depend on their arguments only, not on the order of generation."""
    first = make_image("tile", 3, kind="spot", size=64)
    make_image("wood", 0, size=64)
    again = make_image("tile", 3, kind="spot", size=64)
    assert (first.pixels == again.pixels).all()
    assert (first.pixels != make_image("tile", 4, kind="spot", size=64).pixels).any()
    assert (first.pixels != make_image("tile", 3, kind="spot", size=64, seed=1).pixels).any()


def test_harder_levels_change_less() -> None:
    """The mean change inside the mask falls from easy to hard."""
    changes: list[float] = []
    for level in LEVELS:
        total = 0.0
        for index in range(4):
            made = make_image("brushed", index, kind="spot", level=level, size=64)
            inside = made.pixels[made.mask].mean()
            total += abs(float(inside) - float(made.pixels[~made.mask].mean()))
        changes.append(total)
    assert changes[0] > changes[1] > changes[2]


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.png")):
        total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest()


def test_written_tree_is_byte_equal_and_readable(tmp_path: Path) -> None:
    """Two runs write the same bytes; the tree reads as MVTec with masks for every defect."""
    options = SynthOptions(("leather", "washer"), size=32, train=3, test_good=2, test_bad=1)
    counts = [write_dataset(tmp_path / name, options) for name in ("a", "b")]
    assert counts == [2 * (3 + 2 + 6)] * 2
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert categories(tmp_path / "a") == ("leather", "washer")
    data = read_folder(tmp_path / "a", category="washer")
    assert data.has_masks()
    assert len(data.train) == 3
    assert np.mean([s.label for s in (*data.validation, *data.test)]) == 6 / 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SynthOptions(categories=("glass",)), "no category"),
        (SynthOptions(defects=("rust",)), "no defect"),
        (SynthOptions(level="brutal"), "no level"),
        (SynthOptions(size=8), "image size"),
        (SynthOptions(train=-1), "negative"),
    ],
)
def test_unknown_names_are_refused(options: SynthOptions, message: str) -> None:
    """Unknown categories, defects, levels and impossible sizes name what is known."""
    with pytest.raises(UsageError, match=message):
        options.check()


def test_options_of_the_command(tmp_path: Path) -> None:
    """How many images, which defects, how hard: as the library is told, byte by byte."""
    words = ["synth", "-o", str(tmp_path / "a"), "--category", "tile", "--size", "64"]
    words += ["--defect", "hole", "--defect", "spot", "--level", "easy"]
    assert main([*words, "--train", "1", "--test-good", "1", "--test-bad", "2"]) == 0
    options = SynthOptions(
        categories=("tile",), defects=("hole", "spot"), level="easy",
        size=64, train=1, test_good=1, test_bad=2,
    )  # fmt: skip
    assert write_dataset(tmp_path / "b", options) == 6
    made = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.png"))
    assert len(made) == 6 + 4  # a mask for every defect
    for name in made:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
