"""anomalib's exported ONNX, through the whole build, for every target family.

The exports run in a process of their own (importing anomalib warns a lot). Real pictures here are
generated ones: what counts is that the bundle gives the original file's numbers.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

import adcompile
from adcompile.anomaly.bundle_detector import open_bundle_detector
from adcompile.anomaly.images import tensor_of
from adcompile.anomaly.statistics import read_statistics
from adcompile.compiler import BuildOptions, compile
from adcompile.errors import Unsupported, UsageError
from adcompile.ir import model_io
from adcompile.ir.evaluate import evaluate
from adcompile.manifest import Manifest
from adcompile.runtime.preprocess import preprocess
from tests.anomaly.conftest import tiny_backbone

EXPORTER = Path(__file__).parents[2] / "examples" / "export_anomalib.py"
HEADS = {
    "patchcore": ("KnnSearch", "PatchScorePaper", "MapUpsampleBlur", "NormalizeScore"),
    "padim": ("WhitenedMap", "MapUpsampleBlur", "NormalizeScore"),
    "efficientad": ("SquaredErrorMap", "MapUpsampleBlur", "NormalizeScore"),
}
Image = npt.NDArray[np.uint8]


def export(folder: Path, *words: str) -> Path:
    """Run the example; the folder with the exported files."""
    command = [sys.executable, str(EXPORTER), *words, "--narrow", "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three models as anomalib 2.0 exports them."""
    return export(tmp_path_factory.mktemp("anomalib"), *HEADS, "--legacy")


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PatchCore as the installed anomalib exports it: free batch, height and width."""
    folder = export(tmp_path_factory.mktemp("anomalib"), "patchcore")
    return folder / "patchcore" / "weights" / "onnx" / "model.onnx"


def pictures(folder: Path, side: int = 96, count: int = 2) -> list[Path]:
    """Smooth pictures with a spot, as PNG files."""
    from PIL import Image as Pictures

    folder.mkdir(exist_ok=True)
    made: list[Path] = []
    for number in range(count):
        rng = np.random.default_rng(number)
        y, x = np.mgrid[0:side, 0:side] / side
        canvas = np.stack([90 + 60 * np.sin(6 * (x + i * y)) for i in rng.uniform(0, 2, 3)], -1)
        canvas[20 : 30 + 10 * number, 40:60] = rng.uniform(0, 255, 3)
        made.append(folder / f"{number}.png")
        Pictures.fromarray(canvas.astype(np.uint8)).save(made[-1])
    return made


def build(model: Path, target: str, out: Path, images: list[Path], **options: str) -> Manifest:
    """A float bundle without its C++ project."""
    done = compile(
        model,
        target,
        out,
        BuildOptions(precision="fp32", golden=tuple(images), host_code=False, **options),  # type: ignore[arg-type]
    )
    assert done.ok, done.notes
    return done.manifest


def host_ops(bundle: Path, manifest: Manifest) -> set[str]:
    """adcompile ops of the host parts."""
    found: set[str] = set()
    for part in manifest.parts:
        if part.placement == "host":
            model = model_io.load_model(bundle / part.files["model"])
            found |= {n.op_type for n in model.graph if n.domain == "adcompile"}
    return found


def same_results(model: Path, bundle: Path, images: list[Path]) -> None:
    """The bundle's score within 1e-4 and map within 1e-3 of the original file's, on pictures."""
    from PIL import Image as Pictures

    original = model_io.load_model(model)
    with adcompile.load(bundle) as loaded:
        rule = loaded.manifest.contract.inputs["input"]
        for path in images:
            tensor = preprocess(np.asarray(Pictures.open(path).convert("RGB")), rule)
            wanted = evaluate(original, {"input": tensor})
            got = loaded(path)
            score = wanted["pred_score"].astype(float)
            np.testing.assert_allclose(
                got["pred_score"].astype(float), score, rtol=1e-4, atol=1e-6
            )
            assert 0.0 < float(score.reshape(-1)[0]) < 1.0, "a clipped score tells nothing"
            np.testing.assert_allclose(
                got["anomaly_map"].astype(float), wanted["anomaly_map"].astype(float), atol=1e-3
            )
            np.testing.assert_array_equal(got["pred_label"], wanted["pred_label"])


@pytest.mark.parametrize("target", ["trt:orin-nx", "npu", "drpai"])
@pytest.mark.parametrize("name", HEADS)
def test_exported_models_compile(exported: Path, tmp_path: Path, name: str, target: str) -> None:
    """The network goes to the device, the head becomes ops on the host, the numbers stay."""
    images = pictures(tmp_path / "images")
    model = exported / f"{name}.onnx"
    bundle = tmp_path / "out"
    manifest = build(model, target, bundle, images[:1])
    assert set(HEADS[name]) <= host_ops(bundle, manifest)
    device = [p for p in manifest.parts if p.placement == "device"]
    host = [p for p in manifest.parts if p.placement == "host"]
    assert sum(p.macs for p in device) > 100 * sum(p.macs for p in host)
    if name == "padim":
        (file,) = bundle.glob("parts/*/statistics.adbank")
        assert read_statistics(file).mean.shape == (24, 256)
    score = manifest.contract.score
    assert score is not None
    assert (score.method, score.compare, score.normalisation) == (name, ">", "min_max")
    same_results(model, bundle, images)


def test_the_current_export(current: Path, tmp_path: Path) -> None:
    """Free height and width are fixed to what the graph resizes to; a bank file appears."""
    images = pictures(tmp_path / "images")
    bundle = tmp_path / "out"
    done = compile(
        current, "drpai", bundle, BuildOptions(precision="fp32", golden=tuple(images[:1]))
    )
    assert done.ok
    assert set(HEADS["patchcore"]) <= host_ops(bundle, done.manifest)
    assert done.manifest.contract.inputs["input"].size == (64, 64)
    assert [p.suffix for p in (bundle / "bank").iterdir()] == [".adbank"]
    score = done.manifest.contract.score
    assert score is not None
    assert (score.k, score.weighting, score.blur_sigma) == (9, "paper", 4.0)
    same_results(current, bundle, images)
    with open_bundle_detector(bundle) as detector, adcompile.load(bundle) as loaded:
        assert detector.contract.score is not None
        assert detector.contract.score.threshold == 0.5  # its score is normalised in the graph
        scores, maps = detector(tensor_of(images[1], detector.preprocess))
        assert scores[0] == loaded(images[1])["pred_score"].reshape(-1)[0]
        assert maps.shape == (1, 64, 64)


def test_head_on_the_device(exported: Path, tmp_path: Path) -> None:
    """TensorRT runs the head; where the device cannot, that is said; without a head too."""
    images = pictures(tmp_path / "images", count=1)
    model = exported / "patchcore.onnx"
    manifest = build(model, "trt", tmp_path / "out", images, head="device")
    assert [p.placement for p in manifest.parts] == ["device"]
    same_results(model, tmp_path / "out", images)
    with pytest.raises(Unsupported, match="cannot run the head"):
        build(model, "drpai", tmp_path / "no", images, head="device")
    path = tmp_path / "plain.onnx"
    model_io.save_model(tiny_backbone(batch=1), path)
    with pytest.raises(UsageError, match="no anomaly head"):
        build(path, "trt", tmp_path / "no", [], head="device")
    with pytest.raises(UsageError, match="--head"):
        BuildOptions(head="both")


def test_distances_stay_bounded(exported: Path, tmp_path: Path) -> None:
    """No tensor of the host part has all patches times all rows of the bank."""
    build(exported / "patchcore.onnx", "npu", tmp_path / "out", pictures(tmp_path / "i", count=1))
    for file in sorted((tmp_path / "out" / "parts").rglob("model.onnx")):
        for node in model_io.load_model(file).graph:
            for value in node.outputs:
                assert value.dtype == ir.DataType.UNDEFINED or str(value.shape) != "[256,200]"


def test_quantiles_of_an_exported_efficientad_are_measured_again(
    exported: Path, tmp_path: Path
) -> None:
    """Another exporter's spelling of the scaling: both ranges are found, and replaced."""
    pictures(tmp_path / "good", count=6)
    done = compile(
        exported / "efficientad.onnx",
        "drpai:v2h",
        tmp_path / "out",
        BuildOptions(data=tmp_path / "good", host_code=False),
    )
    assert done.ok, done.notes
    found = done.rebuilt
    assert found is not None
    assert found.kind == "quantiles"
    before = sorted(old for old, _ in found.numbers.values())
    assert before == pytest.approx([0.025, 0.03], rel=1e-4), "qb - qa of the exported model"
    assert any("are the images like those" in note for note in done.notes)
