"""``build --calib``: what may be given, what is kept between builds, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import adcompile
from adcompile import version
from adcompile.check import recorder
from adcompile.compiler import BuildOptions, BuildResult, compile
from adcompile.errors import InputError, UsageError
from adcompile.version import code_version
from tests.compile.models import cnn
from tests.place.nets import two_stage_detector

A8W8 = BuildOptions(precision="a8w8", golden_count=1, host_code=False, verify="none")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Recordings of the tests never meet a user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    code_version.cache_clear()


def edit(monkeypatch: pytest.MonkeyPatch, digest: str) -> None:
    """As if the sources of adcompile were changed."""
    monkeypatch.setattr(version, "source_digest", lambda _folder: digest)
    code_version.cache_clear()


def pictures(folder: Path, count: int, *, equal: bool = False) -> Path:
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng(0 if equal else number)
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def build(folder: Path, calib: Path, **options: object) -> BuildResult:
    return compile(cnn(), "npu:stx", folder, replace(A8W8, calib=calib, **options))  # type: ignore[arg-type]


def state(result: BuildResult, step: str) -> str:
    return next(state for name, state, _ in result.steps if name.startswith(step))


def test_an_interrupted_build_goes_on_and_a_repeated_one_reuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images recorded before the interruption are not run again; a second build says what it reused."""
    calib = pictures(tmp_path / "images", 5)
    whole = recorder.make_feeds
    calls: list[object] = []

    def stops(specs: object, contract: object, source: object) -> object:
        calls.append(source)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(specs, contract, source)  # type: ignore[arg-type]

    monkeypatch.setattr(recorder, "make_feeds", stops)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "a", calib)
    assert not (tmp_path / "a").exists()
    result = build(tmp_path / "a", calib)
    assert len(calls) == 3 + 3  # two were there
    assert state(result, "record") == "continued"
    again = build(tmp_path / "b", calib)
    assert len(calls) == 6
    assert (state(again, "record"), state(again, "lower")) == ("reused", "reused")
    same = build(tmp_path / "b", calib)
    assert [s for _, s, _ in same.steps] == ["reused"]


def test_what_other_code_made_is_not_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A working copy that was edited records and lowers again, and says why."""
    calib = pictures(tmp_path / "images", 2)
    build(tmp_path / "a", calib)
    assert state(build(tmp_path / "b", calib), "lower") == "reused"
    edit(monkeypatch, "edited")
    again = build(tmp_path / "c", calib)
    assert (state(again, "record"), state(again, "lower")) == ("ran", "ran")
    assert any(reason == "changed: adcompile" for _, _, reason in again.steps)
    edit(monkeypatch, "edited-again")
    with pytest.raises(UsageError, match="output already exists") as caught:
        build(tmp_path / "c", calib)
    assert f"it was built with adcompile {adcompile.__version__}+edited" in caught.value.why


def test_equal_images_are_noticed(tmp_path: Path) -> None:
    """Five times the same picture calibrates like one, and that is said."""
    result = build(tmp_path / "a", pictures(tmp_path / "images", 3, equal=True))
    assert any("are equal" in note for note in result.notes)
    other = build(tmp_path / "b", pictures(tmp_path / "more", 3))
    assert not any("are equal" in note for note in other.notes)


def test_pictures_of_any_size_are_resized_and_broken_ones_skipped(tmp_path: Path) -> None:
    """The contract's resize applies; an unreadable file is listed; nothing readable is an error."""
    calib = pictures(tmp_path / "images", 2)
    (calib / "broken.png").write_bytes(b"no image")
    result = build(tmp_path / "a", calib)
    assert any("broken.png skipped" in note for note in result.notes)
    only = tmp_path / "only"
    only.mkdir()
    (only / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="not an image"):
        build(tmp_path / "b", only)


def test_model_io_folders_reach_every_part_by_name(tmp_path: Path) -> None:
    """A seeded defect of others: every part was fed the tensor ``input``. Here each part takes the
    array that is its own, other systems' names are matched by shape, and no rows are added."""
    calib = tmp_path / "model_io"
    rng = np.random.default_rng(0)
    for number in range(3):
        folder = calib / f"{number:012d}"
        folder.mkdir(parents=True)
        np.save(folder / "input_backbone.npy", rng.random((1, 3, 64, 64), np.float32))
        np.save(folder / "box_features.npy", rng.random((3 + number, 64, 7, 7), np.float32) * 9)
        np.save(folder / "mask_features.npy", rng.random((1 + number, 64, 14, 14), np.float32))
    options = replace(A8W8, calib=calib)
    result = compile(two_stage_detector(), "npu:stx", tmp_path / "a", options)
    ranges = {part.name: part.options.get("roi_policy") for part in result.manifest.parts}
    assert {"backbone", "box_head", "mask_head"} <= set(ranges)
    counts = [n for n in result.notes if "roi_policy" in n]
    assert any("3 to 5 regions" in n for n in counts)
    assert any("1 to 3 regions" in n for n in counts)
    for folder in calib.iterdir():
        (folder / "box_features.npy").unlink()
    with pytest.raises(InputError, match="no array fits input"):
        compile(two_stage_detector(), "npu:stx", tmp_path / "b", options)
