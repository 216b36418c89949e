"""Bank, statistics and thresholds from the quantized network: what they repair, and the files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import adcompile
from adcompile.anomaly.formats import r0
from adcompile.anomaly.layouts import read_folder
from adcompile.anomaly.rebuild import Rebuilt
from adcompile.anomaly.remeasure.score import settled
from adcompile.cli import main
from adcompile.compiler import BuildOptions, BuildResult, compile
from adcompile.contract import Score
from adcompile.errors import InputError, UsageError
from adcompile.ir import model_io
from adcompile.ir.graph import constant
from adcompile.manifest import read_manifest
from tests.anomaly.conftest import SIDE, tiny_backbone


def fitted(folder: Path, method: str, data: Path, *words: str) -> Path:
    """A model fitted by the command line."""
    command = ["fit", method, "--data", str(data), "-o", str(folder), "--image-size", str(SIDE)]
    assert main([*command, *words]) == 0
    return folder


@pytest.fixture(scope="module")
def patchcore(twill_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PatchCore with R0's formula."""
    folder = tmp_path_factory.mktemp("models") / "pc"
    return fitted(folder, "patchcore", twill_folder, "--coreset-ratio", "0.05")


@pytest.fixture(scope="module")
def padim(twill_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PaDiM."""
    folder = tmp_path_factory.mktemp("models") / "pd"
    return fitted(folder, "padim", twill_folder, "--features", "16")


def build(model: Path, target: str, out: Path, images: Path, **options: object) -> BuildResult:
    """A quantized bundle with everything rebuilt."""
    given = {"calib": images / "train" / "good", "data": images, "host_code": False, **options}
    return compile(model, target, out, BuildOptions(**given))  # type: ignore[arg-type]


def repaired(result: BuildResult) -> Rebuilt:
    """The report, after checking what it must say: decisions come back, and so does F1."""
    found = result.rebuilt
    assert found is not None
    base, before, after = found.variants
    assert len(found.before) > 2, "the float bank must fail visibly, or the test shows nothing"
    assert len(found.after) < len(found.before) / 2
    assert (after.image["f1"] or 0.0) > (before.image["f1"] or 0.0)
    assert (after.image["auroc"] or 0.0) > 0.85
    assert base.score.threshold != after.score.threshold
    results = result.manifest.results
    assert results["quantized, own bank decision_flips"] == len(found.after)
    assert found.before[0].image in str(results["quantized, float bank flipped_images"])
    return found


def test_patchcore_and_the_file_of_r0(patchcore: Path, twill_folder: Path, tmp_path: Path) -> None:
    """INT8 for DRP-AI: a new coreset repairs the decisions; R0's file holds bank and numbers."""
    bundle = tmp_path / "out"
    result = build(patchcore, "drpai:v2h", bundle, twill_folder, bank_format="r0")
    assert result.ok
    found = repaired(result)
    score = result.manifest.contract.score
    assert score is not None

    data = (bundle / "bank" / "pc.bin").read_bytes()
    magic, threshold, low, high, ratio, k, rows, columns = struct.unpack("<2s4f3i", data[:30])
    assert magic == b"PC"
    assert len(data) == 30 + 4 * rows * columns
    assert (threshold, low, high) == (score.threshold, score.minimum, score.maximum)
    assert (k, rows) == (score.k, found.numbers["rows"][1])
    assert ratio == pytest.approx(0.05)
    host = next(p for p in result.manifest.parts if p.placement == "host")
    model = model_io.load_model(bundle / host.files["model"])
    inside = constant(model.graph.initializers["memory_bank"])
    assert inside is not None
    assert np.array_equal(np.frombuffer(data[30:], "<f4").reshape(rows, columns), inside)
    assert r0.read_bin(bundle / "bank" / "pc.bin").neighbours == k
    assert "bank/pc.bin" in result.manifest.files
    node = next(n for n in model.graph if n.op_type == "NormalizeScore")
    assert node.attributes["threshold"].as_float() == pytest.approx(score.threshold)

    assert any("R0's published application is compiled for 384" in note for note in result.notes)
    page = (bundle / "report.html").read_text(encoding="utf-8")
    assert "rebuilt from the lowered network" in page
    assert page.count("data:image/jpeg;base64") >= len(found.before)
    with adcompile.load(bundle) as loaded:
        sample = next(s for s in read_folder(twill_folder).test if s.label)
        assert 0.0 <= float(loaded(sample.path)["score"].reshape(-1)[0]) <= 1.0
    old = read_rows(patchcore)
    assert old.shape[1] == columns
    assert not np.array_equal(old, inside)


def read_rows(model: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """The bank inside a fitted graph."""
    graph = model_io.load_model(model / "model.onnx").graph
    found = constant(graph.initializers["memory_bank"])
    assert found is not None
    return found


def test_padim_statistics(
    padim: Path, twill_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """XINT8 for Ryzen AI from the command line: statistics again, printed side by side."""
    words = ["build", str(padim), "--target", "npu:stx", "--no-host-code", "-o"]
    words += [str(tmp_path / "out"), "--calib", str(twill_folder / "train" / "good")]
    assert main([*words, "--data", str(twill_folder), "--val", str(twill_folder)]) == 0
    shown = capsys.readouterr().out
    assert "statistics rebuilt" in shown
    assert "float statistics: " in shown
    results = read_manifest(tmp_path / "out").results
    before, after = (
        float(results[f"quantized, {kind} statistics decision_flips"]) for kind in ("float", "own")
    )
    assert before > 2
    assert after < before / 2
    own, float_ = (results[f"quantized, {kind} statistics image_f1"] for kind in ("own", "float"))
    assert float(own) > float(float_)
    with pytest.raises(UsageError, match="PatchCore"):
        build(padim, "npu:stx", tmp_path / "no", twill_folder, bank_format="r0")


def test_normal_images_alone(patchcore: Path, twill_folder: Path, tmp_path: Path) -> None:
    """A folder of good images: the threshold is theirs, AUROC is unknown and said so."""
    good = twill_folder / "train" / "good"
    result = build(patchcore, "drpai:v2h", tmp_path / "out", twill_folder, data=good, calib=None)
    assert not any("calibrated on" in note for note in result.notes), "the images calibrate too"
    assert result.rebuilt is not None
    assert result.rebuilt.variants[0].image["auroc"] is None
    assert any("AUROC and F1 unknown" in note for note in result.notes)


def test_a_strict_threshold_lies_between_scores() -> None:
    """Float32 rounding in the graph's normalisation must not flip the image at the threshold."""
    scores = (1.0, 2.0, 3.0)
    step_below = float(np.nextafter(np.float32(2.0), np.float32(0.0)))
    fields = {"method": "patchcore", "minimum": 0.0, "maximum": 100.0, "compare": ">"}
    strict = Score.model_validate({**fields, "threshold": step_below, "normalisation": "min_max"})
    assert settled(strict, scores).threshold == 1.5
    loose = strict.model_copy(update={"compare": ">="})
    assert settled(loose, scores) == loose
    beyond = strict.model_copy(update={"threshold": 9.0})
    assert settled(beyond, scores) == beyond


def test_requests_that_make_no_sense(patchcore: Path, twill_folder: Path, tmp_path: Path) -> None:
    """No data for a file, an unknown format, no detector, an empty folder; a float bank is said."""
    out = tmp_path / "no"
    with pytest.raises(UsageError, match="goes with --data"):
        build(patchcore, "drpai", out, twill_folder, data=None, val=twill_folder, bank_format="r0")
    with pytest.raises(UsageError, match="--bank-format"):
        BuildOptions(bank_format="r1")
    path = tmp_path / "plain.onnx"
    model_io.save_model(tiny_backbone(batch=1), path)
    with pytest.raises(UsageError, match="anomaly detector"):
        build(path, "drpai", out, twill_folder, precision="fp32")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        build(patchcore, "drpai", out, twill_folder, data=tmp_path / "empty")
    assert not out.exists()
    plain = build(patchcore, "drpai:v2h", tmp_path / "plain", twill_folder, data=None)
    assert any("[float-bank]" in note for note in plain.notes)


@pytest.mark.parametrize(
    ("method", "target", "words", "what"),
    [
        (
            "efficientad",
            "drpai:v2h",
            "--channels 8 --width 0.1 --distill 8 --epochs 2",
            "quantiles",
        ),
        ("vae", "npu:stx", "--epochs 2 --latent 8", "threshold"),
    ],
)
def test_trained_networks(
    method: str, target: str, words: str, what: str, twill_folder: Path, tmp_path: Path
) -> None:
    """EfficientAD and VAE: constants of the quantized network in contract, graph and report."""
    model = fitted(tmp_path / "model", method, twill_folder, *words.split())
    stale = build(model, target, tmp_path / "stale", twill_folder, data=None)
    assert any("[float-bank]" in note and what in note for note in stale.notes)

    bundle = tmp_path / "out"
    result = build(
        model, target, bundle, twill_folder / "train" / "good", val=twill_folder, calib=None
    )
    assert result.ok, result.notes
    found = result.rebuilt
    assert found is not None
    assert found.kind == what
    assert found.others, "the threshold comes from other images than those that are judged"
    assert len(found.numbers) == (2 if what == "quantiles" else 0)
    assert sum(f.wrong for f in found.after) <= sum(f.wrong for f in found.before)
    score = result.manifest.contract.score
    assert score is not None
    before = adcompile.load(tmp_path / "stale").manifest.contract.score
    assert before is not None
    assert score.threshold != before.threshold
    host = next(p for p in result.manifest.parts if p.placement == "host" and "score" in str(p))
    graph = model_io.load_model(bundle / host.files["model"]).graph
    node = next(n for n in graph if n.op_type == "NormalizeScore")
    assert node.attributes["threshold"].as_float() == pytest.approx(score.threshold)
    assert node.attributes["maximum"].as_float() == pytest.approx(score.maximum)
    page = (bundle / "report.html").read_text(encoding="utf-8")
    assert f"{what.capitalize()} rebuilt from the lowered network" in page
    assert f"quantized, own {what} decision_flips" in result.manifest.results
