"""A small drawn set, written once."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from adcompile.detection.coco import CocoSet, read_coco
from adcompile.detection.shapes import write_set


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> CocoSet:
    """Twelve drawn images with their annotations."""
    folder = tmp_path_factory.mktemp("drawn")
    return read_coco(write_set(folder, "val", 12, seed=3), folder / "val")


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """A folder with one 8x6 picture, a.png."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (8, 6), (10, 20, 30)).save(folder / "a.png")
    return folder
