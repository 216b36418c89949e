"""A deployed detector held against the float one: the numbers, the bounds, and what breaks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from adcompile.anomaly.accuracy import (
    Answers,
    agreement,
    averaged,
    correlation,
    default_budgets,
    distance,
    useless,
)
from adcompile.anomaly.samples import Sample
from adcompile.backends.drpai import lowering
from adcompile.check.accuracy import AccuracyCheck, check_accuracy
from adcompile.cli import main
from adcompile.compiler import BuildOptions, BuildResult, compile
from adcompile.contract import Preprocess
from adcompile.errors import UsageError
from adcompile.interfaces import Array, CalibrationData
from adcompile.ir import model_io
from adcompile.ir.graph import constant
from adcompile.lower.quantizers import QuantizeRequest
from adcompile.manifest import read_manifest
from adcompile.runtime.bundle import load
from adcompile.steps import judging
from adcompile.steps.search_record import SearchRecord
from tests.anomaly.conftest import SIDE, tiny_backbone

LABELS = [0, 0, 1, 1]


def answers(scores: list[float], limit: float = 0.5, scale: float = 1.0) -> Answers:
    """Made-up answers whose maps are the scores times *scale*."""
    values = np.asarray(scores, np.float32)
    maps = np.repeat(np.float32(scale) * values, 4).reshape(-1, 2, 2)
    return Answers(values, values > limit, maps.astype(np.float32))


def test_a_linear_change_loses_nothing() -> None:
    """Scores and maps on another scale, with a threshold of their own, say the same."""
    base = answers([0.1, 0.2, 0.7, 0.9])
    own = answers([11.0, 12.0, 17.0, 19.0], limit=15.0, scale=3.0)
    found = distance(base, own, LABELS)
    assert found["auroc_loss"] == found["f1_loss"] == found["flips"] == 0.0
    assert found["rank_correlation"] == pytest.approx(1.0)
    assert found["map_agreement"] == 1.0


def test_losses_and_flips() -> None:
    """Two images that change places, and one decision that changes with them."""
    base = answers([0.1, 0.2, 0.7, 0.9])
    own = answers([0.1, 0.6, 0.4, 0.9])
    found = distance(base, own, LABELS)
    assert found["float_auroc"] == 1.0
    assert found["auroc_loss"] == 0.25  # one of four pairs
    assert found["flips"] == 0.5
    assert found["f1_loss"] == 0.5
    assert found["rank_correlation"] == pytest.approx(0.8)
    assert "auroc" not in distance(base, own, [0, 0, 0, 0])


def test_a_constant_agrees_with_nothing() -> None:
    """A detector that says the same of every image has lost the order and the map."""
    found = distance(answers([0.1, 0.2, 0.7, 0.9]), answers([0.3] * 4), LABELS)
    assert found["auroc"] == 0.5
    assert found["rank_correlation"] == 0.0
    assert found["map_agreement"] == 0.5
    base = answers([0.1, 0.2, 0.7, 0.9])
    same = distance(base, base, LABELS)
    assert useless(same)["auroc_loss"] == 0.5
    assert set(useless(same)) == set(same)
    assert correlation(np.ones(3, np.float32), np.ones(3, np.float32)) == 1.0


def test_maps_are_averaged_in_blocks() -> None:
    """At most 64 cells a side; the last block is smaller where they do not fit."""
    heat = np.arange(130 * 60, dtype=np.float32).reshape(130, 60)
    small = averaged(heat)
    assert small.shape == (44, 60)
    assert small[0, 0] == heat[:3, 0].mean()
    assert small[-1, -1] == heat[129:, -1].mean()


def test_the_hottest_places_count() -> None:
    """A map that is cut off above agrees; one that is hot elsewhere does not."""
    random = np.random.default_rng(0)
    maps = random.random((2, 50, 50)).astype(np.float32)
    maps[0, :5, :10] += 100 * random.random((5, 10)).astype(np.float32)
    cut = np.minimum(maps, 3.0)
    assert correlation(maps, cut) < 0.9
    assert agreement(maps, cut) > 0.99
    assert agreement(maps, np.roll(cut, 20, axis=1)) < 0.6
    assert agreement(np.ones_like(maps), maps) == 1.0


def test_default_bounds() -> None:
    """AUROC where there are labels of both kinds, never tighter than what one image can cost."""
    assert [str(b) for b in default_budgets([0] * 90 + [1] * 25)] == [
        "auroc_loss<=0.05",
        "map_agreement>=0.9",
    ]
    assert str(default_budgets(LABELS)[0]) == "auroc_loss<=0.5"
    assert [b.metric for b in default_budgets([0, 0])] == ["map_agreement"]


@dataclass
class Dark:
    """Calibration data a thousand times darker than the images will be."""

    inner: CalibrationData

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for feeds in self.inner:
            yield {n: np.multiply(a, 1e-3, dtype=np.float32) for n, a in feeds.items()}


def darkened(request: QuantizeRequest) -> QuantizeRequest:
    """Quantized to a range in which no real image lies."""
    return replace(request, data=Dark(request.data))


def blinded(request: QuantizeRequest) -> QuantizeRequest:
    """Nothing is left of any convolution's weights."""
    copy = request.model.clone()
    for name, value in copy.graph.initializers.items():
        array = constant(value)
        if array is not None and array.ndim == 4:
            weights = np.zeros(array.shape, np.float32)
            value.const_value = ir.tensor(weights, name=name)
    return replace(request, model=copy)


def destroy(
    monkeypatch: pytest.MonkeyPatch,
    how: Callable[[QuantizeRequest], QuantizeRequest],
    *,
    repaired_by: int = 99,
) -> None:
    """From here on every quantization is spoiled, unless so many nodes stay in float."""
    honest = lowering.quantizer

    def broken(name: str) -> Callable[[QuantizeRequest], ir.Model]:
        def quantize(request: QuantizeRequest) -> ir.Model:
            return honest(name)(how(request) if len(request.floats) < repaired_by else request)

        return quantize

    monkeypatch.setattr(lowering, "quantizer", broken)


@pytest.fixture(scope="module")
def model(twill_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted PatchCore on the built-in filters."""
    folder = tmp_path_factory.mktemp("accuracy") / "pc"
    command = ["fit", "patchcore", "--data", str(twill_folder), "-o", str(folder)]
    assert main([*command, "--image-size", str(SIDE), "--coreset-rows", "20"]) == 0
    return folder


def build(model: Path, out: Path, images: Path, **options: object) -> BuildResult:
    """INT8 for DRP-AI with constants of its own, without the cache (quantizers are replaced)."""
    given = {"data": images, "host_code": False, "cache": False, "force": True, **options}
    return compile(model, "drpai:v2h", out, BuildOptions(**given))  # type: ignore[arg-type]


def checked(bundle: Path, *budgets: str) -> AccuracyCheck:
    """The bundle held against float with other bounds than its own."""
    with load(bundle) as opened:
        record = opened.manifest.accuracy
        assert record is not None
        return check_accuracy(opened, record.model_copy(update={"budgets": budgets}))


def test_a_good_bundle_says_what_it_lost(
    model: Path, twill_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Float's answers are in the bundle; verify runs the images again and holds the bounds."""
    out = tmp_path / "out"
    result = build(model, out, twill_folder)
    assert result.ok, result.notes
    record = read_manifest(out).accuracy
    assert record is not None
    assert result.rebuilt is not None
    assert len(record.images) == result.rebuilt.images
    assert {image.label for image in record.images} == {0, 1}
    base, _, own = result.rebuilt.variants
    results = result.manifest.results
    assert results["against float float_auroc"] == pytest.approx(base.image["auroc"])
    assert results["against float auroc"] == pytest.approx(own.image["auroc"])
    assert main(["verify", str(out)]) == 0
    assert "deployed against float on" in capsys.readouterr().out
    assert "deployed against float on" in (out / "report.html").read_text("utf-8")

    strict = checked(out, "map_agreement>=1.0000001", "auroc_loss<=1")
    assert not strict.ok
    assert [b.metric for b in strict.broken] == ["map_agreement"]
    assert "allowed map_agreement>=1" in strict.text
    assert checked(out, "map_agreement>=-1").ok
    image = out / record.images[0].file
    image.write_bytes(image.read_bytes()[::-1])
    assert main(["verify", str(out)]) == 2  # a changed file is refused before anything runs


def test_a_quantization_that_destroys_the_detector(
    model: Path,
    twill_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The bundle reproduces its own golden data to the bit, and is stopped all the same."""
    destroy(monkeypatch, darkened)
    out = tmp_path / "out"
    result = build(model, out, twill_folder)
    assert not result.ok
    results = result.manifest.results
    assert results["part embedding isolated snr_db"] == 300.0
    assert "too far from the float model" in str(results["accuracy"])
    assert "culprit" not in results, "no part differs from its golden data"
    assert main(["verify", str(out)]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "too far from the float model" in shown
    assert "auroc_loss" in shown or "map_agreement" in shown
    assert checked(out, "auroc_loss<=1", "map_agreement>=-1").ok


def test_a_bound_promotes_nodes(
    twill_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search keeps in float what it takes, measured with constants of each try's own; the bundle
    is held to all bounds."""
    model_io.save_model(tiny_backbone(), tmp_path / "net.onnx")
    model = tmp_path / "pd"
    command = ["fit", "padim", "--data", str(twill_folder), "-o", str(model), "--features", "8"]
    assert main([*command, "--backbone", str(tmp_path / "net.onnx")]) == 0
    destroy(monkeypatch, blinded, repaired_by=1)
    options = {"budget": "map_agreement>=0.9,auroc_loss<=0.4"}
    small = {"keep_small": "true"}  # or the host would take this network
    result = build(model, tmp_path / "out", twill_folder, backend_options=small, **options)
    assert result.ok, result.notes
    record = SearchRecord.model_validate(result.search)
    assert record.budget == "map_agreement>=0.9"
    assert record.reference["map_agreement"] == pytest.approx(1.0)
    assert record.steps[0].metrics["map_agreement"] < 0.9
    assert record.chosen is not None
    assert len(record.chosen.floats) == 1
    measured = float(result.manifest.results["against float map_agreement"])
    assert measured == pytest.approx(record.chosen.metrics["map_agreement"], abs=1e-3)
    assert result.manifest.accuracy is not None
    assert result.manifest.accuracy.budgets == ("map_agreement>=0.9", "auroc_loss<=0.4")


def test_bounds_that_cannot_be_measured(model: Path, twill_folder: Path, tmp_path: Path) -> None:
    """No images, no labels, bounds of two kinds, no verification: refused, each with its reason."""
    out, good = tmp_path / "no", twill_folder / "train" / "good"
    cases = [
        ({"data": None, "calib": good, "budget": "auroc_loss<=0.1"}, "needs images"),
        ({"data": good, "budget": "f1_loss<=0.1"}, "good and bad images"),
        ({"budget": "auroc_loss<=0.1,snr>=30"}, "together"),
        ({"budget": "auroc_loss<=0.1", "verify": "none"}, "checked by verify"),
    ]
    for options, message in cases:
        with pytest.raises(UsageError, match=message):
            build(model, out, twill_folder, **options)
    assert not out.exists()


def test_few_images_are_both_kinds(
    model: Path, twill_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on images or bytes keeps good and bad ones, and is said; bounds are the user's."""
    assert judging.spread([0, 0, 0, 1, 1], 4) == [3, 0, 4, 1]
    assert judging.spread([0, 0], 4) == [0, 1]
    monkeypatch.setattr(judging, "MAX_BYTES", 1)
    result = build(model, tmp_path / "one", twill_folder, budget="flips<=1, map_agreement>=0")
    assert result.ok
    assert result.manifest.accuracy is not None
    assert len(result.manifest.accuracy.images) == 1
    assert result.manifest.accuracy.budgets == ("flips<=1", "map_agreement>=0")
    assert any("verify judges 1 of" in note for note in result.notes)


def test_arrays_are_kept_as_tensors(tmp_path: Path) -> None:
    """An image that is no file, or a large one, is kept as the input that was made of it."""
    spec, pixels = Preprocess(size=(8, 8)), np.zeros((8, 8, 3), np.uint8)
    array = Sample(Path("x"), 0, pixels=pixels)
    assert judging.keep_image(tmp_path / "a", array, spec).suffix == ".npy"
    small, large = tmp_path / "small.PNG", tmp_path / "large.bmp"
    for path, side in ((small, 8), (large, 64)):
        Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(path)
    assert judging.keep_image(tmp_path / "b", Sample(small, 0), spec).name == "b.png"
    assert judging.keep_image(tmp_path / "c", Sample(large, 0), spec).suffix == ".npy"
