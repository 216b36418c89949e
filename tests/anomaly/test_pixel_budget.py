"""Bounds on how well the maps find the defect's pixels: measured, held, refused without masks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from PIL import Image

from adcompile.anomaly.accuracy import METRICS, Pixels, distance, useless
from adcompile.anomaly.samples import Sample
from adcompile.check.accuracy import AccuracyCheck, check_accuracy
from adcompile.cli import main
from adcompile.compiler import BuildOptions, BuildResult, compile
from adcompile.contract import Contract, Preprocess
from adcompile.errors import UsageError
from adcompile.job import Job
from adcompile.manifest import read_manifest
from adcompile.runtime.bundle import load
from adcompile.steps.judging import kept_of
from adcompile.steps.search_record import SearchRecord
from tests.anomaly.conftest import SIDE
from tests.anomaly.test_accuracy import LABELS, answers, darkened, destroy

BOUND = "pixel_auroc_loss<=0.1, aupro_loss<=0.3"


@pytest.fixture(scope="module")
def model(twill_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted PatchCore on the built-in filters."""
    folder = tmp_path_factory.mktemp("pixels") / "pc"
    command = ["fit", "patchcore", "--data", str(twill_folder), "-o", str(folder)]
    assert main([*command, "--image-size", str(SIDE), "--coreset-rows", "20"]) == 0
    return folder


def build(model: Path, out: Path, **options: object) -> BuildResult:
    """INT8 for DRP-AI, without the C++ project."""
    given = {"host_code": False, "cache": False, "force": True, **options}
    return compile(model, "drpai:v2h", out, BuildOptions(**given))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def result(
    model: Path, twill_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> BuildResult:
    """Built under bounds on the pixels, on images with masks."""
    return build(model, tmp_path_factory.mktemp("built") / "out", data=twill_folder, budget=BOUND)


def checked(bundle: Path, *budgets: str) -> AccuracyCheck:
    """The bundle held against float with other bounds than its own."""
    with load(bundle) as opened:
        record = opened.manifest.accuracy
        assert record is not None
        return check_accuracy(opened, record.model_copy(update={"budgets": budgets}))


def test_pixels_are_counted_at_full_size() -> None:
    """A map that is the mask finds everything; its opposite nothing; no mask, no number."""
    mask = np.zeros((16, 16), np.bool_)
    mask[4:8, 4:8] = True
    right, wrong, bare = Pixels(), Pixels(), Pixels()
    for found, heat in ((right, mask), (wrong, ~mask), (bare, mask)):
        found.add(heat.astype(np.float32), 1, None if found is bare else mask)
        found.add(np.zeros((16, 16), np.float32), 0, None)
    assert right.metrics() == {"pixel_auroc": 1.0, "aupro": 1.0}
    assert wrong.metrics()["pixel_auroc"] < 0.5
    assert bare.metrics() == {}
    small = Pixels()
    small.add(np.zeros((8, 8), np.float32), 1, mask)
    assert small.metrics() == {}, "the map is not of the image's size"


def test_losses_of_pixels() -> None:
    """Float minus deployed; what tells nothing apart is no better than chance."""
    base = replace(answers([0.1, 0.2, 0.7, 0.9]), pixels={"pixel_auroc": 0.9, "aupro": 0.8})
    own = replace(base, pixels={"pixel_auroc": 0.7, "aupro": 0.5})
    found = distance(base, own, LABELS)
    assert found["pixel_auroc_loss"] == pytest.approx(0.2)
    assert found["aupro_loss"] == pytest.approx(0.3)
    assert found["float_aupro"] == 0.8
    assert set(found) <= METRICS
    worst = useless(distance(base, base, LABELS))
    assert worst["pixel_auroc"] == 0.5
    assert worst["pixel_auroc_loss"] == pytest.approx(0.4)


def test_a_bound_on_pixels_is_searched_for_and_verified(
    result: BuildResult, capsys: pytest.CaptureFixture[str]
) -> None:
    """The search, the build's report and verify, which reads the masks in the bundle, agree."""
    assert result.ok, result.notes
    record = SearchRecord.model_validate(result.search)
    assert record.chosen is not None
    assert record.reference["pixel_auroc_loss"] == 0.0
    assert result.rebuilt is not None
    base, _, own = result.rebuilt.variants
    results = result.manifest.results
    assert results["against float float_pixel_auroc"] == pytest.approx(
        base.pixel["auroc"], abs=1e-6
    )
    assert results["against float pixel_auroc"] == pytest.approx(own.pixel["auroc"], abs=1e-6)
    measured = record.chosen.metrics["pixel_auroc"]
    assert measured == pytest.approx(own.pixel["auroc"], abs=1e-6)
    assert main(["verify", str(result.path)]) == 0
    assert "pixel AUROC" in " ".join(capsys.readouterr().out.split())
    broken = checked(result.path, "pixel_auroc>=1.1", "aupro_loss<=1")
    assert [b.metric for b in broken.broken] == ["pixel_auroc"]


def test_a_changed_mask_is_refused(result: BuildResult, tmp_path: Path) -> None:
    """Masks are files of the bundle like any other."""
    copy = tmp_path / "copy"
    shutil.copytree(result.path, copy)
    accuracy = read_manifest(copy).accuracy
    assert accuracy is not None
    masks = [image.mask for image in accuracy.images if image.label]
    assert all(masks)
    (copy / masks[0]).write_bytes((copy / masks[1]).read_bytes())
    assert main(["verify", str(copy)]) == 2


def test_a_network_that_finds_no_defect_breaks_the_bound(
    model: Path, twill_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage: quantized to a range in which no image lies."""
    destroy(monkeypatch, darkened)
    out = tmp_path / "out"
    assert not build(model, out, data=twill_folder).ok
    found = checked(out, "pixel_auroc_loss<=0.1", "aupro_loss<=1")
    assert [b.metric for b in found.broken] == ["pixel_auroc_loss"]
    assert "pixel AUROC" in found.text


def test_images_without_masks_cannot_bound_pixels(
    model: Path, twill_folder: Path, tmp_path: Path
) -> None:
    """Refused before any work, with the first image that has none."""
    bare = tmp_path / "bare"
    shutil.copytree(twill_folder, bare, ignore=shutil.ignore_patterns("ground_truth"))
    with pytest.raises(UsageError, match="needs a mask for every bad image"):
        build(model, tmp_path / "out", data=bare, budget="pixel_auroc>=0.5")
    assert not (tmp_path / "out").exists()


def test_only_images_that_are_judged_must_be_measurable(tmp_path: Path) -> None:
    """Labels and masks count on the images that the bundle keeps, and on no others."""
    good, bad, bare = (tmp_path / f"{name}.png" for name in ("good", "bad", "bare"))
    for path in (good, bad, bare):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    samples = [Sample(good, 0), Sample(bad, 1, mask=bad), Sample(bare, 1)]

    def kept(most: int) -> list[int]:
        options = BuildOptions(budget="pixel_auroc>=0.5", val=tmp_path, eval_samples=most)
        contract = Contract(inputs={"image": Preprocess(size=(8, 8))})
        return kept_of(cast(Job, SimpleNamespace(options=options, contract=contract)), samples)

    assert kept(2) == [1, 0]
    with pytest.raises(UsageError, match="needs a mask for every bad image"):
        kept(3)
    with pytest.raises(UsageError, match="1 of 3 images are judged, 1 of them bad") as caught:
        kept(1)
    assert "--eval-samples above 1" in caught.value.fix
